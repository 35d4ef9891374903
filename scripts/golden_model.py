"""Makes worker/train/tests/golden/huggingface: values of a tiny BertForQuestionAnswering.

Needs torch 2.11 and transformers 5 (any Python environment; nothing of it is used at run time):
    python scripts/golden_model.py worker/train/tests/golden/huggingface
The folder has the layout that `tests/huggingface.rs` reads: config.json, weights, inputs, outputs (logits, loss,
hidden states), grads, weights_after_step (one clipped AdamW step), meta.json. All weights are random.
"""

import copy
import json
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForQuestionAnswering

STEP = {"lr": 5e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01, "clip": 0.5}


def model():
    torch.manual_seed(20)
    config = BertConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, type_vocab_size=2, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )
    network = BertForQuestionAnswering(config)
    with torch.no_grad():
        for parameter in network.parameters():
            # Biases and layer norms too: a swapped pair must show.
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.train()


def batch():
    lengths, width = [24, 17, 9, 24], 24
    ids = torch.randint(1, 97, (len(lengths), width))
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, length:] = 0
        mask[row, :length] = 1
        types[row, 6:length] = 1
    return {
        "input_ids": ids, "attention_mask": mask, "token_type_ids": types,
        "start_positions": torch.tensor([7, 10, 0, 20]), "end_positions": torch.tensor([9, 10, 0, 23]),
    }


def decays(name):
    return not (name.endswith("bias") or "LayerNorm" in name)


def main(folder):
    os.makedirs(folder, exist_ok=True)
    network, inputs = model(), batch()

    def save(name, tensors):
        save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, os.path.join(folder, name))

    network.config.save_pretrained(folder)
    save("weights.safetensors", network.state_dict())
    save("inputs.safetensors", inputs)
    stepped = copy.deepcopy(network)
    out = stepped(**inputs, output_hidden_states=True)
    out.loss.backward()
    outputs = {"start_logits": out.start_logits, "end_logits": out.end_logits, "loss": out.loss.reshape(1)}
    outputs.update({f"hidden_{k}": h for k, h in enumerate(out.hidden_states)})
    save("outputs.safetensors", outputs)
    save("grads.safetensors", {k: p.grad for k, p in stepped.named_parameters() if p.grad is not None})
    norm = float(torch.nn.utils.clip_grad_norm_(stepped.parameters(), STEP["clip"]))
    groups = [
        {"params": [p for k, p in stepped.named_parameters() if decays(k)], "weight_decay": STEP["weight_decay"]},
        {"params": [p for k, p in stepped.named_parameters() if not decays(k)], "weight_decay": 0.0},
    ]
    torch.optim.AdamW(groups, lr=STEP["lr"], betas=STEP["betas"], eps=STEP["eps"]).step()
    save("weights_after_step.safetensors", stepped.state_dict())
    with open(os.path.join(folder, "meta.json"), "w") as f:
        json.dump({"torch": torch.__version__, "grad_norm_before_clip": norm, "step": STEP}, f, indent=1)


if __name__ == "__main__":
    main(sys.argv[1])
