//! One array in NumPy's format npy, version 1 to 3.

use super::Array;
use crate::cursor::Cursor;
use crate::error::Fault;
use crate::view::{Element, View, column_major};

/// The array of these bytes.
pub(super) fn array(bytes: &[u8]) -> Array<'_> {
    let mut cursor = Cursor::new(bytes);
    if cursor.take(6)? != b"\x93NUMPY" {
        return Fault::damaged("it does not begin as npy");
    }
    let version = cursor.u8()?;
    cursor.u8()?;
    let length = match version {
        1 => cursor.u16()?.into(),
        2 | 3 => cursor.u32()?,
        _ => return Fault::unsupported(format!("it is npy of version {version}; 1 to 3 are read here")),
    };
    let header = cursor.text(length.into())?;
    let Some((kind, fortran, shape)) = parse(header) else {
        return Fault::damaged("its npy header does not say descr, fortran_order and shape");
    };
    let Some(element) = element(kind) else {
        return Fault::unsupported(format!(
            "its elements are of type {}; little-endian numbers are read here",
            kind.escape_default()
        ));
    };
    let mut view = View::row_major(element, cursor.take(cursor.left() as u64)?, shape)?;
    if fortran {
        view.strides = column_major(&view.shape);
    }
    Ok(view)
}

/// Type, order and shape of a header, which is a Python dictionary: `{'descr': '<f4', 'fortran_order': False,
/// 'shape': (48, 16), }`.
fn parse(header: &str) -> Option<(&str, bool, Vec<u64>)> {
    let value = |key: &str| {
        let (_, rest) = header.split_once(key)?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let kind = value("'descr'")?.strip_prefix('\'')?.split_once('\'')?.0;
    let order = value("'fortran_order'")?;
    let fortran = order.starts_with("True");
    if !fortran && !order.starts_with("False") {
        return None;
    }
    let axes = value("'shape'")?.strip_prefix('(')?.split_once(')')?.0;
    // A tuple of one has a comma behind it.
    let axes = axes.trim().strip_suffix(',').unwrap_or(axes.trim());
    let shape = match axes {
        "" => Vec::new(),
        axes => axes.split(',').map(|axis| axis.trim().parse().ok()).collect::<Option<_>>()?,
    };
    Some((kind, fortran, shape))
}

fn element(kind: &str) -> Option<Element> {
    Some(match kind {
        "<f2" => Element::F16,
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        "|b1" | "|i1" | "|u1" => Element::Whole(1),
        "<i2" | "<u2" => Element::Whole(2),
        "<i4" | "<u4" => Element::Whole(4),
        "<i8" | "<u8" => Element::Whole(8),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\0".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn both_orders_of_axes_are_read() {
        let data: Vec<u8> = (0..6).flat_map(|v| (v as f32).to_le_bytes()).collect();
        for (order, expected) in [("False", [0., 1., 2., 3., 4., 5.]), ("True", [0., 2., 4., 1., 3., 5.])] {
            let header = format!("{{'descr': '<f4', 'fortran_order': {order}, 'shape': (2, 3), }}\n");
            let bytes = npy(&header, &data);
            let view = array(&bytes).unwrap();
            assert_eq!((view.shape.clone(), view.floats().unwrap().unwrap()), (vec![2, 3], expected.into()));
        }
    }

    #[test]
    fn shapes_are_tuples() {
        for (shape, expected) in [
            ("()", Some(vec![])),
            ("(3,)", Some(vec![3])),
            ("(3, 0)", Some(vec![3, 0])),
            ("(-1,)", None),
            ("3", None),
        ] {
            let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
            assert_eq!(parse(&header).map(|(_, _, shape)| shape), expected, "{shape}");
        }
    }

    #[test]
    fn other_types_and_shapes_are_refused() {
        let header = |kind: &str| format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (1,), }}");
        assert!(matches!(array(&npy(&header(">f4"), &[0; 4])), Err(Fault::Unsupported(_))));
        assert!(matches!(array(&npy(&header("<f4"), &[0; 8])), Err(Fault::Damaged(_))));
        assert!(matches!(array(&npy("{}", &[])), Err(Fault::Damaged(_))));
        assert!(array(&npy(&header("<i8"), &[0; 8])).unwrap().floats().unwrap().is_none());
    }
}
