//! What a state dict's pickle may name. Everything else is refused.

use crate::view::Element;

/// What a name in a pickle stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `collections.OrderedDict`: a dictionary.
    Dictionary,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, shape, strides, ...)`.
    Tensor,
    /// `torch._utils._rebuild_parameter(tensor, ...)`: the tensor.
    Parameter,
    /// `torch.FloatStorage` and its like: the type of a storage's elements.
    Storage(Element),
    /// `torch.float32` and its like, which no state dict's tensor needs.
    Dtype,
}

/// The meaning of `module.name`; `None` when it is none of weights' business.
pub(super) fn lookup(module: &str, name: &str) -> Option<Global> {
    Some(match (module, name) {
        ("collections", "OrderedDict") => Global::Dictionary,
        ("torch._utils", "_rebuild_tensor_v2") => Global::Tensor,
        ("torch._utils", "_rebuild_parameter") => Global::Parameter,
        ("torch", name) => match name.strip_suffix("Storage") {
            Some(kind) => Global::Storage(element(kind)?),
            None if DTYPES.contains(&name) => Global::Dtype,
            None => return None,
        },
        _ => return None,
    })
}

fn element(kind: &str) -> Option<Element> {
    Some(match kind {
        "Half" => Element::F16,
        "BFloat16" => Element::Bf16,
        "Float" => Element::F32,
        "Double" => Element::F64,
        "Bool" | "Byte" | "Char" => Element::Whole(1),
        "Short" => Element::Whole(2),
        "Int" => Element::Whole(4),
        "Long" => Element::Whole(8),
        _ => return None,
    })
}

const DTYPES: [&str; 10] =
    ["float16", "bfloat16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64"];
