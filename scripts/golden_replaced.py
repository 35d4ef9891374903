"""Makes worker/train/tests/golden/replaced: values computed by the replaced program (GluonNLP's run_squad.py).

Input is a folder with one folder for each of five tiny models, with the program's own arrays (io.npz, grads_v1.npz,
params_qa_conditional_v1.npz, params_after_step{1,4}.npz, gluon_to_hf.json). Needs numpy and safetensors:
    python scripts/golden_replaced.py SEED_VALUES worker/train/tests/golden/replaced
Only names change: fused query, key and value are cut in three, gamma and beta become weight and bias, and RoBERTa's
position table gets Hugging Face's two rows for padding.
"""

import json
import os
import sys

import numpy as np
from safetensors.numpy import save_file

MODELS = {
    "bert": "google_en_uncased_bert_base", "albert": "google_albert_base_v2", "electra": "google_electra_small",
    "mobilebert": "google_uncased_mobilebert", "roberta": "fairseq_roberta_large",
}
POSITIONS = "embeddings.position_embeddings.weight"
UP = {"albert": "encoder.albert_layer_groups.0.albert_layers.0.ffn.weight"}
LAYERS = {"albert": 3}


def hugging_face(arrays, names, family):
    """The replaced program's parameters under our names."""
    out = {}
    for name, values in arrays.items():
        targets = names.get(name) or names.get("backbone." + name)
        if targets is None:
            targets = [name.replace(".gamma", ".weight").replace(".beta", ".bias")]
        for target, part in zip(targets, np.split(values, len(targets))):
            out[target] = np.ascontiguousarray(part.astype(np.float32))
    if family == "roberta" and POSITIONS in out:
        out[POSITIONS] = np.pad(out[POSITIONS], ((2, 0), (0, 0)))
    return out


def config(weights, family):
    word = weights["embeddings.word_embeddings.weight"].shape
    fields = {
        "model_type": family, "vocab_size": word[0], "hidden_size": weights["start_scores.weight"].shape[1],
        "num_hidden_layers": LAYERS.get(family, 2), "num_attention_heads": 2,
        "intermediate_size": weights[UP.get(family, "encoder.layer.0.intermediate.dense.weight")].shape[0],
        "max_position_embeddings": weights[POSITIONS].shape[0], "type_vocab_size": 2,
        # No row of its tables is spared as padding.
        "pad_token_id": None,
        "hidden_act": {"albert": "gelu_new", "mobilebert": "relu"}.get(family, "gelu"), "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0, "layer_norm_eps": 1e-12,
    }
    if family in ("albert", "electra", "mobilebert"):
        fields["embedding_size"] = word[1]
    if family == "mobilebert":
        fields["intra_bottleneck_size"] = weights["encoder.layer.0.bottleneck.input.dense.weight"].shape[0]
        fields["num_feedforward_networks"] = 1 + sum(
            name.startswith("encoder.layer.0.ffn.") and name.endswith("intermediate.dense.weight") for name in weights
        )
    if family == "roberta":
        fields |= {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
    return fields


def write(source, folder, family):
    os.makedirs(folder, exist_ok=True)
    load = lambda name: dict(np.load(os.path.join(source, name)))
    with open(os.path.join(source, "gluon_to_hf.json")) as f:
        names = json.load(f)
    tensors = lambda name: hugging_face(load(name), names, family)
    weights = tensors("params_qa_conditional_v1.npz")
    save_file(weights, os.path.join(folder, "weights.safetensors"))
    save_file(tensors("grads_v1.npz"), os.path.join(folder, "grads.safetensors"))
    for step in (1, 4):
        after = tensors(f"params_after_step{step}.npz")
        save_file(after, os.path.join(folder, f"weights_after_step{step}.safetensors"))
    basic = tensors("params_qa_basic_head.npz")
    save_file(basic, os.path.join(folder, "basic_head.safetensors"))
    io = {k.replace("/", "."): np.ascontiguousarray(v) for k, v in load("io.npz").items()}
    wanted = ("inputs.", "v1.", "train.", "contextual_embeddings", "initial_embedding", "basic.")
    io = {k: v.reshape(v.shape or (1,)) for k, v in io.items() if k.startswith(wanted)}
    io = {k: v.astype(np.int64) if v.dtype == np.int32 else v.astype(np.float32) for k, v in io.items()}
    save_file(io, os.path.join(folder, "io.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config(weights, family), f, indent=1)


if __name__ == "__main__":
    for family, model in MODELS.items():
        write(os.path.join(sys.argv[1], model), os.path.join(sys.argv[2], family), family)
