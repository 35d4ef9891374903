"""Makes a reference folder of `squadctl models verify` from a model and real questions, by Hugging Face transformers.

Needs torch 2.11 and transformers 5 (any Python environment; nothing of it is used at run time):
    python scripts/reference.py out/model squad/dev-v1.1.json reference [--questions 50]
    squadctl models verify --model out/model --reference reference
The model is loaded as anybody would load it (AutoModelForQuestionAnswering), so this also shows that it can be. Values
are computed in 64-bit floats; answers are the first gold answers, the whole context in one window.
"""

import argparse
import json
import os

import torch
from safetensors.torch import save_file
from transformers import AutoModelForQuestionAnswering, AutoTokenizer


def questions(path, count):
    with open(path, encoding="utf-8") as f:
        data = json.load(f)["data"]
    found = [
        (q["question"], p["context"], q["answers"][0] if q["answers"] else None)
        for article in data for p in article["paragraphs"] for q in p["qas"]
    ]
    return found[:: max(1, len(found) // count)][:count]


def batch(tokenizer, asked, longest):
    enc = tokenizer([q.strip() for q, _, _ in asked], [c for _, c, _ in asked], truncation="only_second",
                    max_length=longest, padding=True, return_offsets_mapping=True, return_tensors="pt")
    starts, ends = [], []
    for row, (_, _, answer) in enumerate(asked):
        tokens = [k for k, part in enumerate(enc.sequence_ids(row)) if part == 1]
        place = [0, 0]
        if answer:
            first, last = answer["answer_start"], answer["answer_start"] + len(answer["text"])
            inside = [k for k in tokens if enc["offset_mapping"][row][k][0] < last and enc["offset_mapping"][row][k][1] > first]
            place = [inside[0], inside[-1]] if inside else place
        starts.append(place[0])
        ends.append(place[1])
    types = enc.get("token_type_ids", torch.zeros_like(enc["input_ids"]))
    return {"input_ids": enc["input_ids"], "attention_mask": enc["attention_mask"], "token_type_ids": types,
            "start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--max-seq-length", type=int, default=256)
    a = parser.parse_args()
    os.makedirs(a.out, exist_ok=True)
    network, info = AutoModelForQuestionAnswering.from_pretrained(
        a.model, attn_implementation="eager", output_loading_info=True)
    missing = {key: sorted(map(str, names)) for key, names in info.items() if names}
    print("transformers says of the weights:", missing or "all used, none missing")
    inputs = batch(AutoTokenizer.from_pretrained(a.model), questions(a.data, a.questions), a.max_seq_length)
    network = network.double().eval()
    out = network(**inputs, output_hidden_states=True)
    out.loss.backward()
    outputs = {f"hidden_{depth}": state for depth, state in enumerate(out.hidden_states)}
    outputs |= {"start_logits": out.start_logits, "end_logits": out.end_logits, "loss": out.loss.reshape(1)}
    tidy = lambda all: {name: value.detach().float().contiguous() for name, value in all.items()}
    save_file(inputs, os.path.join(a.out, "inputs.safetensors"))
    save_file(tidy(outputs), os.path.join(a.out, "outputs_f64.safetensors"))
    save_file(tidy({name: p.grad for name, p in network.named_parameters()}), os.path.join(a.out, "grads_f64.safetensors"))


if __name__ == "__main__":
    main()
