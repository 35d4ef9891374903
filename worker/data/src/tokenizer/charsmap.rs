//! The character replacements in a SentencePiece file, checked before they are trusted.
//!
//! The layout, little endian: the length in bytes of a trie (32 bits), the trie, then
//! all replacements, each ended by a zero. The trie is a double array of 32-bit units
//! as in the darts-clone library: bit 31 marks a value, bits 0 to 7 are a label, bit 8
//! says that a value follows, and the rest is the distance to the children, which is
//! combined by exclusive or.

use tokenizers::normalizers::Precompiled;

/// Reads the replacements. The library follows the trie without looking, so that a
/// damaged one would end the process: hence every step that it could take is tried here.
pub(super) fn read(map: &[u8]) -> Result<Precompiled, String> {
    let broken = |what: &str| format!("its character replacements {what}");
    let (length, rest) = map.split_first_chunk::<4>().ok_or_else(|| broken("are cut off"))?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || !length.is_multiple_of(4) {
        return Err(broken("have no trie"));
    }
    let (trie, replacements) = rest.split_at_checked(length).ok_or_else(|| broken("are cut off"))?;
    let replacements = std::str::from_utf8(replacements).map_err(|_| broken("are not UTF-8"))?;
    let units: Vec<u32> =
        trie.chunks_exact(4).map(|unit| u32::from_le_bytes([unit[0], unit[1], unit[2], unit[3]])).collect();
    if !(0..units.len()).all(|at| leads_somewhere(&units, at, replacements)) {
        return Err(broken("point outside their trie"));
    }
    Precompiled::from(map).map_err(|e| broken(&format!("cannot be read ({e})")))
}

/// Whether unit `at` is a value, or its children and its value exist. The root is no value.
fn leads_somewhere(units: &[u32], at: usize, replacements: &str) -> bool {
    let unit = units[at];
    if at != 0 && unit >> 31 == 1 {
        return true;
    }
    let distance = (unit >> 10) << ((unit & (1 << 9)) >> 6);
    let children = at ^ distance as usize;
    // A child lies where any byte may lead; 255 takes the farthest.
    let reachable = children | 0xff < units.len();
    let value = |at: usize| (units[at] & (u32::MAX >> 1)) as usize;
    reachable && (unit >> 8 & 1 == 0 || replacements.is_char_boundary(value(children)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trie that replaces the byte `a` by `bc`: root at 0 with children at 256, value at 512.
    fn map() -> Vec<u8> {
        let mut units = vec![0u32; 768];
        units[0] = 256 << 10;
        let child = 256 ^ usize::from(b'a');
        let value = 512 ^ usize::from(b'a');
        units[child] = u32::from(b'a') | 1 << 8 | 768 << 10;
        units[value] = 1 << 31;
        let mut map = 3072u32.to_le_bytes().to_vec();
        map.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        map.extend(b"bc\0");
        map
    }

    fn refusal(change: impl Fn(&mut Vec<u8>)) -> String {
        let mut map = map();
        change(&mut map);
        read(&map).unwrap_err()
    }

    #[test]
    fn a_sound_map_is_read() {
        let map = read(&map()).unwrap();
        assert_eq!(map.normalize_string("xax"), "xbcx");
    }

    #[test]
    fn every_kind_of_damage_is_named() {
        assert_eq!(refusal(|map| map.truncate(3)), "its character replacements are cut off");
        assert_eq!(refusal(|map| map.truncate(1000)), "its character replacements are cut off");
        assert_eq!(refusal(|map| map[..4].fill(0xff)), "its character replacements have no trie");
        assert_eq!(refusal(|map| map.push(0xff)), "its character replacements are not UTF-8");
        assert!(refusal(|map| map[7] = 0x40).contains("point outside"), "the root's children");
        let value = 4 + 4 * (512 ^ usize::from(b'a'));
        assert!(refusal(|map| map[value] = 9).contains("point outside"), "a replacement");
    }
}
