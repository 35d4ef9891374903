"""Makes worker/train/tests/golden/families: values of tiny *ForQuestionAnswering models of six families.

Needs torch 2.11 and transformers 5 (any Python environment; nothing of it is used at run time):
    python scripts/golden_families.py worker/train/tests/golden/families
One folder for each family and seed, both a model folder (config.json, model.safetensors) and a reference folder
of `squadctl models verify` (inputs, outputs_f64, grads_f64). All weights are random, norms and biases too; sizes
are odd on purpose. The values are computed in 64-bit floats, with eager attention, dropout off.
"""

import os
import sys

import torch
import transformers as hf
from safetensors.torch import save_file

# heads, width of a head, layers, vocabulary, longest sequence, rows, columns
SHAPES = {1: (3, 4, 2, 41, 21, 3, 17), 2: (2, 6, 3, 53, 19, 2, 11), 3: (5, 2, 2, 37, 26, 4, 23)}


def config(family, seed):
    heads, head, layers, vocabulary, longest, _, _ = SHAPES[seed]
    common = dict(
        vocab_size=vocabulary, num_hidden_layers=layers, num_attention_heads=heads, hidden_size=heads * head,
        intermediate_size=7 * seed + 6, max_position_embeddings=longest, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, type_vocab_size=2,
    )
    narrow = 2 * seed + 3
    fairseq = dict(common, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5,
                   max_position_embeddings=longest + 2)
    if family == "bert":
        return hf.BertConfig(**common), hf.BertForQuestionAnswering
    if family == "roberta":
        return hf.RobertaConfig(**fairseq), hf.RobertaForQuestionAnswering
    if family == "xlm-roberta":
        return hf.XLMRobertaConfig(**fairseq), hf.XLMRobertaForQuestionAnswering
    if family == "electra":
        # The second has no projection, as ELECTRA-base.
        width = heads * head if seed == 2 else narrow
        return hf.ElectraConfig(**common, embedding_size=width), hf.ElectraForQuestionAnswering
    if family == "albert":
        shared = dict(num_hidden_groups=1, inner_group_num=1, hidden_act="gelu_new", classifier_dropout_prob=0.0)
        return hf.AlbertConfig(**common, **shared, embedding_size=narrow), hf.AlbertForQuestionAnswering
    wide = dict(common, hidden_size=heads * head + 5)
    return hf.MobileBertConfig(
        **wide, embedding_size=narrow, intra_bottleneck_size=heads * head, use_bottleneck=True,
        use_bottleneck_attention=False, key_query_shared_bottleneck=True, num_feedforward_networks=seed + 1,
        normalization_type="no_norm", hidden_act="relu", trigram_input=True,
    ), hf.MobileBertForQuestionAnswering


def randomise(network, generator):
    with torch.no_grad():
        for name, parameter in sorted(network.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "LayerNorm.weight" in name or "layer_norm.weight" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.3 * noise)
            elif "_embeddings." in name:
                parameter.copy_(0.6 * noise)
            else:
                # MobileBERT has no statistics in its norms that would keep large values down.
                scale = 0.5 if network.config.model_type == "mobilebert" else 1
                parameter.copy_(noise * scale / parameter.shape[-1] ** 0.5)


def batch(settings, seed, generator):
    _, _, _, vocabulary, _, rows, columns = SHAPES[seed]
    lengths = torch.linspace(columns, columns // 2, rows).long()
    ids = torch.full((rows, columns), settings.pad_token_id)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    starts, ends = torch.zeros(rows, dtype=torch.long), torch.zeros(rows, dtype=torch.long)
    for row, length in enumerate(lengths.tolist()):
        ids[row, :length] = torch.randint(3, vocabulary, (length,), generator=generator)
        mask[row, :length] = 1
        if settings.type_vocab_size > 1:
            types[row, 3 + row % 2 : length] = 1
        if row != 1:  # The second row has no answer.
            starts[row], ends[row] = length - 4, length - 2
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "start_positions": starts,
            "end_positions": ends}


def write(folder, family, seed):
    os.makedirs(folder, exist_ok=True)
    generator = torch.Generator().manual_seed(1000 + seed)
    settings, kind = config(family, seed)
    settings._attn_implementation = "eager"
    network = kind(settings).eval()
    randomise(network, generator)
    network.save_pretrained(folder)
    inputs = batch(settings, seed, generator)
    network = network.double()
    out = network(**inputs, output_hidden_states=True)
    out.loss.backward()
    outputs = {f"hidden_{depth}": state for depth, state in enumerate(out.hidden_states)}
    outputs |= {"start_logits": out.start_logits, "end_logits": out.end_logits, "loss": out.loss.reshape(1)}
    grads = {name: parameter.grad for name, parameter in network.named_parameters()}
    # Stored as 32-bit floats: their rounding is a hundredth of the tolerance.
    tidy = lambda all: {name: value.detach().float().contiguous() for name, value in all.items()}
    save_file(inputs, os.path.join(folder, "inputs.safetensors"))
    save_file(tidy(outputs), os.path.join(folder, "outputs_f64.safetensors"))
    save_file(tidy(grads), os.path.join(folder, "grads_f64.safetensors"))


if __name__ == "__main__":
    for family in ("bert", "roberta", "xlm-roberta", "electra", "albert", "mobilebert"):
        for seed in SHAPES:
            write(os.path.join(sys.argv[1], f"{family}-{seed}"), family, seed)
