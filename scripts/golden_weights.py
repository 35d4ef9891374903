"""Makes worker/weights/tests/golden: weight files of every form that squad-weights reads, and what is in them.

Needs numpy, safetensors and torch, and for the second part the folder with the files of the replaced program
(backbone.params, backbone_legacy_v3.params, qa_conditional_v1.params, qa_basic.params, gluon_to_hf.json, model.yml
for each family):
    python scripts/golden_weights.py [--replaced SEED_VALUES] [--out worker/weights/tests/golden]

state.*                  one state dict with views, shared storages, several types: zip form in pickle protocol 2 and
                         4, older form, and state.expected.safetensors with what a reader must give back
sharded, sharded_bin     folders with an index, in both formats; the same state dict
malicious.*              pickles that would call os.system; nothing here runs them
big_endian.bin           the zip form as a big-endian machine writes it
fortran.npz              arrays of numpy.savez: column-major, half precision, whole numbers
FAMILY/                  files of the replaced program as they are; expected.json has shape and SHA-256 of every tensor
                         under Hugging Face's names, by gluon_to_hf.json
"""

import argparse
import collections
import hashlib
import io
import json
import os
import shutil
import struct
import zipfile

import numpy as np
import torch
from safetensors.torch import save_file

FAMILIES = {
    "bert": "google_en_uncased_bert_base", "roberta": "fairseq_roberta_large", "electra": "google_electra_small",
    "albert": "google_albert_base_v2", "mobilebert": "google_uncased_mobilebert",
}


def state_dict():
    rng = np.random.RandomState(3)
    base = torch.from_numpy(rng.randn(48).astype(np.float32))
    extremes = torch.tensor([0.0, -0.0, float("inf"), 1e-45, 3.4e38, 65504.0, 6e-8])
    module = torch.nn.Linear(2, 2)
    state = module.state_dict()  # an OrderedDict with notes about versions
    state["weight"], state["bias"] = base[:4].reshape(2, 2).clone(), base[4:6].clone()
    state["view.transposed"] = base.view(6, 8).t()
    state["view.offset"] = base.view(6, 8)[1:5:2, 3:6]
    state["view.permuted"] = base.view(2, 4, 6).permute(2, 0, 1)
    state["view.tail"] = base[40:]
    state["shared.first"] = base
    state["shared.second"] = base.view(4, 12)
    state["expanded"] = base[:3].expand(4, 3)
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.zeros(0, 3)
    state["single"] = extremes.clone()
    state["half"] = extremes.half()
    state["half.transposed"] = base.half().view(6, 8).t()
    state["bfloat16"] = extremes.bfloat16()
    state["double"] = extremes.double() * (1 + 1e-12)
    state["parameter"] = torch.nn.Parameter(base[:5].clone())
    state["position_ids"] = torch.arange(7).view(1, 7)
    state["flags"] = torch.tensor([True, False])
    state["steps"] = torch.tensor([3], dtype=torch.int32)
    return state


def expected(state):
    floats = {k: v.detach().to(torch.float32).contiguous().clone() for k, v in state.items() if v.is_floating_point()}
    return collections.OrderedDict(sorted(floats.items()))


def write_state(out):
    state = state_dict()
    # The archive's folder is named after the file, so the name is part of the golden file.
    torch.save(state, os.path.join(out, "state.bin"))
    torch.save(state, os.path.join(out, "state.protocol4.bin"), pickle_protocol=4)
    torch.save(state, os.path.join(out, "state.older.bin"), _use_new_zipfile_serialization=False)
    save_file(expected(state), os.path.join(out, "state.expected.safetensors"))
    contiguous = {k: v.detach().contiguous().clone() for k, v in state.items()}
    half = len(contiguous) // 2
    parts = [dict(list(contiguous.items())[:half]), dict(list(contiguous.items())[half:])]
    for folder, stem, ending, save in [
        ("sharded", "model", "safetensors", lambda part, path: save_file(part, path, {"format": "pt"})),
        ("sharded_bin", "pytorch_model", "bin", torch.save),
    ]:
        folder = os.path.join(out, folder)
        os.makedirs(folder, exist_ok=True)
        weight_map = {}
        for i, part in enumerate(parts):
            file = f"{stem}-{i + 1:05}-of-00002.{ending}"
            save(part, os.path.join(folder, file))
            weight_map.update({name: file for name in part})
        index = {"metadata": {"total_size": 0}, "weight_map": dict(sorted(weight_map.items()))}
        with open(os.path.join(folder, f"{stem}.{ending}.index.json"), "w") as f:
            json.dump(index, f, indent=1)


class Malicious:
    def __reduce__(self):
        return os.system, ("echo the pickle was run",)


def write_damaged(out):
    torch.save({"weight": torch.ones(2), "bias": Malicious()}, os.path.join(out, "malicious.bin"))
    torch.save({"weight": Malicious()}, os.path.join(out, "malicious.older.bin"), _use_new_zipfile_serialization=False)
    with open(os.path.join(out, "malicious.pickle"), "wb") as f:
        f.write(b"\x80\x02cos\nsystem\nX\x17\x00\x00\x00echo the pickle was run\x85R.")
    # The same archive, but for what it says about the order of bytes.
    source = io.BytesIO()
    torch.save({"weight": torch.ones(2)}, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(os.path.join(out, "big_endian.bin"), "w") as new:
        for entry in old.infolist():
            new.writestr(zipfile.ZipInfo(entry.filename), b"big" if entry.filename.endswith("byteorder") else old.read(entry))


def write_arrays(out):
    rng = np.random.RandomState(5)
    matrix = rng.randn(3, 4).astype(np.float32)
    arrays = {"rows": matrix, "columns": np.asfortranarray(matrix), "half": matrix.astype(np.float16), "count": np.arange(3)}
    np.savez(os.path.join(out, "fortran.npz"), **arrays)


def digest(values):
    values = np.ascontiguousarray(values.astype("<f4"))
    return {"shape": list(values.shape), "sha256": hashlib.sha256(values.tobytes()).hexdigest()}


def legacy_arrays(path):
    """Arrays of MXNet's list, here all of one type."""
    with open(path, "rb") as f:
        data = f.read()
    place, arrays, out = 16, [], {}

    def read(form):
        nonlocal place
        place += struct.calcsize("<" + form)
        return struct.unpack_from("<" + form, data, place - struct.calcsize("<" + form))

    for _ in range(read("Q")[0]):
        magic, stype, ndim = read("Iii")
        shape = read(f"{ndim}q")
        kind = read("iii")[2]
        assert (magic, stype, kind) == (0xF993FACA, 0, 0), path
        arrays.append(np.array(read(f"{int(np.prod(shape))}f"), "<f4").reshape(shape))
    for array in arrays[: read("Q")[0]]:
        name = read(f"{read('Q')[0]}s")[0].decode()
        out[name] = array
    return out


def hugging_face(arrays, names, family):
    """The replaced program's arrays under Hugging Face's names."""
    whole = any(name.startswith("backbone.") for name in arrays)
    prefix = family + "." if whole else ""
    out = {}
    for name, values in arrays.items():
        targets = names.get(name if whole else "backbone." + name)
        if targets is None:  # a head's
            out[name.replace(".gamma", ".weight").replace(".beta", ".bias")] = values
            continue
        out.update({prefix + t: part for t, part in zip(targets, np.split(values, len(targets)))})
    if family == "roberta":
        positions = out[prefix + "embeddings.position_embeddings.weight"]
        zeros = np.zeros((2, positions.shape[1]), "<f4")
        out[prefix + "embeddings.position_embeddings.weight"] = np.concatenate([zeros, positions])
        out[prefix + "embeddings.token_type_embeddings.weight"] = zeros[:1]
    return out


def write_replaced(source, out):
    for family, folder in FAMILIES.items():
        folder, target = os.path.join(source, folder), os.path.join(out, family)
        os.makedirs(target, exist_ok=True)
        files = ["backbone_legacy_v3.params", "qa_conditional_v1.params", "gluon_to_hf.json", "model.yml"]
        if family == "albert":
            files += ["backbone.params", "qa_basic.params"]
        with open(os.path.join(folder, "gluon_to_hf.json")) as f:
            names = json.load(f)
        expected = {}
        for file in files:
            with open(os.path.join(folder, file), "rb") as f, open(os.path.join(target, file), "wb") as copy:
                shutil.copyfileobj(f, copy)
            if not file.endswith(".params"):
                continue
            path = os.path.join(folder, file)
            arrays = legacy_arrays(path) if "legacy" in file else dict(np.load(path))
            renamed = hugging_face(arrays, names, family)
            expected[file] = {name: digest(values) for name, values in sorted(renamed.items())}
        with open(os.path.join(target, "expected.json"), "w") as f:
            json.dump(expected, f, indent=0)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--replaced", help="folder with the replaced program's files")
    ap.add_argument("--out", default=os.path.join(here, "../worker/weights/tests/golden"))
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    torch.manual_seed(0)
    write_state(a.out)
    write_damaged(a.out)
    write_arrays(a.out)
    if a.replaced:
        write_replaced(a.replaced, a.out)


if __name__ == "__main__":
    main()
