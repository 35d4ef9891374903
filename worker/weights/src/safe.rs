//! safetensors files.

use safetensors::{Dtype, SafeTensors};

use crate::contents::Contents;
use crate::error::Fault;
use crate::view::{Element, View};

/// Reads all tensors of a file.
pub(crate) fn read(bytes: &[u8], contents: &mut Contents) -> Result<(), Fault> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| Fault::Damaged(e.to_string()))?;
    for (name, tensor) in file.iter() {
        let shape = tensor.shape().iter().map(|n| *n as u64).collect();
        let view = View::row_major(element(name, tensor.dtype())?, tensor.data(), shape)?;
        contents.add(name, &view)?;
    }
    Ok(())
}

fn element(name: &str, dtype: Dtype) -> Result<Element, Fault> {
    Ok(match dtype {
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        Dtype::F32 => Element::F32,
        Dtype::F64 => Element::F64,
        Dtype::BOOL | Dtype::U8 | Dtype::I8 => Element::Whole(1),
        Dtype::U16 | Dtype::I16 => Element::Whole(2),
        Dtype::U32 | Dtype::I32 => Element::Whole(4),
        Dtype::U64 | Dtype::I64 => Element::Whole(8),
        other => {
            return Fault::unsupported(format!(
                "tensor {name} is of type {other}, which is not read here; save it as F32, F16 or BF16"
            ));
        }
    })
}
