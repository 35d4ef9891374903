"""Makes worker/train/tests/golden/replaced: values computed by the replaced program (GluonNLP's run_squad.py).

Input is a folder with its arrays for one tiny BERT (io.npz, grads_v1.npz, params_qa_conditional_v1.npz,
params_after_step{1..4}.npz, gluon_to_hf.json, model.yml). Needs numpy and safetensors:
    python scripts/golden_replaced.py SEED_VALUES/google_en_uncased_bert_base worker/train/tests/golden/replaced
Only names change: fused query, key and value are cut in three, and gamma and beta become weight and bias.
"""

import json
import os
import sys

import numpy as np
from safetensors.numpy import save_file


def hugging_face(arrays, names):
    """The replaced program's parameters under our names."""
    out = {}
    for name, values in arrays.items():
        targets = names.get(name) or names.get("backbone." + name)
        if targets is None:
            targets = [name.replace(".gamma", ".weight").replace(".beta", ".bias")]
        for target, part in zip(targets, np.split(values, len(targets))):
            out[target] = np.ascontiguousarray(part.astype(np.float32))
    return out


def main(source, folder):
    os.makedirs(folder, exist_ok=True)
    load = lambda name: dict(np.load(os.path.join(source, name)))
    with open(os.path.join(source, "gluon_to_hf.json")) as f:
        names = json.load(f)
    weights = hugging_face(load("params_qa_conditional_v1.npz"), names)
    save_file(weights, os.path.join(folder, "weights.safetensors"))
    save_file(hugging_face(load("grads_v1.npz"), names), os.path.join(folder, "grads.safetensors"))
    for step in range(1, 5):
        after = hugging_face(load(f"params_after_step{step}.npz"), names)
        save_file(after, os.path.join(folder, f"weights_after_step{step}.safetensors"))
    io = {k.replace("/", "."): np.ascontiguousarray(v) for k, v in load("io.npz").items()}
    wanted = ("inputs.", "v1.", "train.", "contextual_embeddings", "basic.")
    io = {k: v.reshape(v.shape or (1,)) for k, v in io.items() if k.startswith(wanted)}
    io = {k: v.astype(np.int64) if v.dtype == np.int32 else v.astype(np.float32) for k, v in io.items()}
    save_file(io, os.path.join(folder, "io.safetensors"))
    heads, layers = 2, 2
    config = {
        "model_type": "bert", "vocab_size": weights["embeddings.word_embeddings.weight"].shape[0],
        "hidden_size": weights["embeddings.word_embeddings.weight"].shape[1], "num_hidden_layers": layers,
        "num_attention_heads": heads, "intermediate_size": weights["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": weights["embeddings.position_embeddings.weight"].shape[0], "type_vocab_size": 2,
        "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "layer_norm_eps": 1e-12,
    }
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
