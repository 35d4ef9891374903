//! Pickles written by hand.

use super::*;

fn fault(pickle: &[u8]) -> Fault {
    run(&mut Cursor::new(pickle)).err().unwrap()
}

#[test]
fn a_name_that_weights_have_no_need_of_is_refused_by_name() {
    for (pickle, expected) in [
        (&b"cos\nsystem\n(X\x04\0\0\0truetR."[..], "os.system"),
        (b"\x80\x04\x95\0\0\0\0\0\0\0\0\x8c\x08builtins\x94\x8c\x04eval\x93.", "builtins.eval"),
        (b"(X\x04\0\0\0trueios\nsystem\n.", "os.system"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"ctorch\nQUInt8Storage\n.", "torch.QUInt8Storage"),
        (b"c\x1b[2J\nx\n.", "\\u{1b}[2J.x"),
    ] {
        let Fault::Refused(name) = fault(pickle) else { panic!("{expected} was not refused") };
        assert_eq!(name, expected);
    }
}

#[test]
fn instructions_that_state_dicts_do_not_need_are_not_run() {
    // OBJ, NEWOBJ, NEWOBJ_EX, EXT1, POP, DUP, PERSID, INT.
    for instruction in *b"o\x81\x92\x8202PI" {
        let pickle = [b'N', b'N', instruction, b'.'];
        assert!(matches!(fault(&pickle), Fault::Unsupported(_)), "{instruction:#x}");
    }
}

#[test]
fn programs_that_make_no_sense_are_damaged() {
    for pickle in [
        &b""[..],
        b".",
        b"(.",
        b"N(\x85.",
        b"t.",
        b"]N",
        b"Na.",
        b"}N(Nu.",
        b"h\x01.",
        b"q\0.",
        b"\x8c\x05ab.",
        b"J\0\0.",
        b"K\x01Q.",
        b"]K\x01b.",
        b"ccollections\nOrderedDict\nK\x01\x85R.",
        b"cos",
    ] {
        assert!(matches!(fault(pickle), Fault::Damaged(_) | Fault::Unsupported(_)), "{pickle:?}");
    }
}

#[test]
fn whole_numbers_keep_their_sign() {
    for (pickle, expected) in [
        (&b"\x8a\0."[..], 0),
        (b"\x8a\x01\xff.", -1),
        (b"\x8a\x02\xff\0.", 255),
        (b"\x8a\x05\0\0\0\0\x01.", 1 << 32),
        (b"J\xfe\xff\xff\xff.", -2),
        (b"M\xff\xff.", 65_535),
    ] {
        let built = run(&mut Cursor::new(pickle)).unwrap();
        assert!(matches!(built.value, Value::Whole(n) if n == expected), "{pickle:?}: {:?}", built.value);
    }
}
