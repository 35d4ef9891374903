//! The form of PyTorch before 1.6: a magic number, a version, a description of the machine, the state dict and
//! the storages' keys, each a pickle; then the storages in the order of those keys, each after its length.

use std::collections::BTreeMap;

use super::objects::Value;
use super::pickle;
use crate::contents::Contents;
use crate::cursor::Cursor;
use crate::error::Fault;

/// The first pickle's number, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The second's.
const VERSION: i64 = 1001;

/// Reads all tensors of the file's state dict.
pub(crate) fn read(bytes: &[u8], contents: &mut Contents) -> Result<(), Fault> {
    let mut cursor = Cursor::new(bytes);
    if !matches!(pickle::run(&mut cursor)?.value, Value::Long(magic) if magic == MAGIC) {
        return Fault::unsupported(
            "it is a pickle, but not one that PyTorch's save wrote; load it where it was made and save it with \
             torch.save or as safetensors",
        );
    }
    if !matches!(pickle::run(&mut cursor)?.value, Value::Whole(VERSION)) {
        return Fault::unsupported(
            "it is of a version of PyTorch's older form that is not read here; load and save it with a current \
             PyTorch",
        );
    }
    let machine = pickle::run(&mut cursor)?;
    if !matches!(machine.objects.entry(machine.value, "little_endian"), Some(Value::True)) {
        return Fault::unsupported(
            "its numbers are big-endian; load it with PyTorch on a little-endian machine and save it again",
        );
    }
    let built = pickle::run(&mut cursor)?;
    let keys = pickle::run(&mut cursor)?;
    let storages = built.objects.storages();
    let mut data = BTreeMap::new();
    for key in keys.objects.items(keys.value) {
        let Value::Text(key) = *key else { return Fault::damaged("a storage's key is no text") };
        let storage = storages.get(key).filter(|s| !data.contains_key(s.key));
        let count = cursor.u64()?;
        let Some(storage) = storage.filter(|storage| storage.count == count) else {
            return Fault::damaged(format!(
                "storage {} of {count} elements is not the one that its tensors lie in",
                key.escape_default()
            ));
        };
        data.insert(key, cursor.take(storage.bytes())?);
    }
    for (name, tensor) in built.objects.tensors(built.value)? {
        let Some(data) = data.get(tensor.storage.key) else {
            return Fault::damaged(format!("tensor {name}: its storage is not there"));
        };
        // One key may be named twice with two types.
        let size = usize::try_from(tensor.storage.bytes()).unwrap_or(usize::MAX);
        let Some(data) = data.get(..size) else {
            return Fault::damaged(format!("tensor {name}: its storage is shorter than it says"));
        };
        contents.add(name, &tensor.view(data))?;
    }
    Ok(())
}
