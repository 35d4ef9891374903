"""Makes tests/data/zoo: a tiny pretrained encoder, without a head, of every family but BERT.

Needs torch 2.11 and transformers 5 (any Python environment; nothing of it is used at run time):
    python scripts/golden_zoo.py tests/data/zoo
The weights are random, each folder in another form: sharded, as PyTorch's file, as one safetensors file. The
tokenizers are those of worker/data/tests/golden/tokenizers (see golden_tokenizers.py), two as raw vocabulary files
alone.
"""

import os
import shutil
import sys

import torch
import transformers as hf

TOKENIZERS = os.path.join(os.path.dirname(__file__), "..", "worker", "data", "tests", "golden", "tokenizers")
# Longest sequence in tokens.
LONGEST = 96
COMMON = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, type_vocab_size=2,
    max_position_embeddings=LONGEST,
)
FAIRSEQ = dict(
    COMMON, type_vocab_size=1, max_position_embeddings=LONGEST + 2, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    layer_norm_eps=1e-5,
)
# Class of the encoder, its settings, the tokenizer's files and the number of its entries, the form of the weights.
FAMILIES = {
    "roberta": (
        hf.RobertaModel, hf.RobertaConfig(**FAIRSEQ, vocab_size=489),
        ("byte_level", ["vocab.json", "merges.txt"]), "sharded",
    ),
    "xlm-roberta": (
        hf.XLMRobertaModel, hf.XLMRobertaConfig(**FAIRSEQ, vocab_size=328),
        ("xlm_roberta", ["tokenizer.json"]), "bin",
    ),
    "albert": (
        hf.AlbertModel,
        hf.AlbertConfig(
            **COMMON, vocab_size=308, embedding_size=8, num_hidden_groups=1, inner_group_num=1, hidden_act="gelu_new",
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        ),
        ("albert", ["spiece.model"]), "safetensors",
    ),
    "electra": (
        hf.ElectraModel, hf.ElectraConfig(**COMMON, vocab_size=345, embedding_size=8),
        ("uncased", ["vocab.txt"]), "safetensors",
    ),
    "mobilebert": (
        hf.MobileBertModel,
        hf.MobileBertConfig(
            **COMMON, vocab_size=345, embedding_size=8, intra_bottleneck_size=8, true_hidden_size=8,
            use_bottleneck=True, use_bottleneck_attention=False, key_query_shared_bottleneck=True,
            num_feedforward_networks=2, normalization_type="no_norm", hidden_act="relu", trigram_input=True,
        ),
        ("uncased", ["tokenizer.json"]), "safetensors",
    ),
}


def write(folder, family):
    kind, settings, (tokenizer, files), form = FAMILIES[family]
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    torch.manual_seed(7)
    network = kind(settings)
    network.save_pretrained(folder, max_shard_size="30KB" if form == "sharded" else "1GB")
    if form == "bin":
        os.remove(os.path.join(folder, "model.safetensors"))
        torch.save(network.state_dict(), os.path.join(folder, "pytorch_model.bin"))
    for name in files + ["tokenizer_config.json"]:
        shutil.copyfile(os.path.join(TOKENIZERS, tokenizer, name), os.path.join(folder, name))


if __name__ == "__main__":
    for family in FAMILIES:
        write(os.path.join(sys.argv[1], family), family)
