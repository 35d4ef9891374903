#!/usr/bin/env python3
"""Makes the golden values of squad-data's tokenizers, from Hugging Face's own tokenizer classes.

  python scripts/golden_tokenizers.py [--peers ../shared/peers] [--squad ../shared/data/squad] [--out worker/data/tests/golden/tokenizers]

KIND/tokenizer.json, tokenizer_config.json   a small tokenizer of each kind, as save_pretrained writes it
KIND/vocab.txt | vocab.json, merges.txt | spiece.model | sentencepiece.bpe.model   the files it was made from
texts.json           hard cases
KIND/expected.json   for each text its ids and its offsets in code points (start, end, start, end, ...)
windows.json         run_qa's windows and gold positions in the two layouts (data set: golden_data.py)
shared.json          SHA-256 over ids and offsets of every text of the four SQuAD files, where they are at hand

Kinds: uncased and cased WordPiece, byte_level BPE (RoBERTa), albert and xlm_roberta (SentencePiece unigram).
Needs transformers 5, tokenizers, numpy, protobuf and sentencepiece. All sentences were written for this file.
"""

import argparse
import collections
import hashlib
import json
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import unicodedata

import golden_data

SENTENCES = """
The miller's daughter carried 24 sacks of flour across the old bridge before noon.
Nobody could say why the clock on the town hall had stopped at 7.45 on Tuesday.
In 1887 the society bought 1,250 books, 36 maps and a telescope for 3,400 crowns.
Rain fell for nine days; on the tenth, the river took the ferry and both landings.
"Who painted the ceiling?" asked the visitor. "My uncle," said the guide, "in 1923."
She plays the cello, he repairs violins, and their children build paper boats.
The well-known baker (who was also the mayor) opened her shop at 5 o'clock.
Engineers measured the tunnel again: it was 12.5 metres longer than planned.
What is the name of the harbour where the whalers spent the winter of 1790?
When was the first lighthouse on the island built, and by whom was it paid for?
Its population doubled between 1950 and 1960, then fell by 15% within ten years.
The café near the theatre sells naïve paintings, crème brûlée and strong coffee.
Ingrid Ørsted wrote to Łukasz Żak about the straße in Zürich and the señor from Málaga.
How many passengers and bicycles did the captain take on board at the lighthouse?
The treaty was signed by the king, the queen and the governor; it was never kept.
They do not know whether the museum's largest stone fell from the sky or was carried there.
""".strip().split("\n")

# Letters that every small vocabulary shall know as pieces of words, beside ASCII.
LETTERS = "éèêüöäñçøłßıάοδσς漢字東京語日本ひらがなカタカナ한국말אבגשלוםابجدسلامहिन्दी"

TEXTS = [
    "", " ", "   ", "\n", "\t\n \r\n", "\u00a0", "\u3000", "\u200b", "a", ".", "The miller's daughter", "  The  miller ",
    "the old bridge\n\nbefore noon\tthe end ", "trailing space ", " leading space", "NBSP\u00a0between\u00a0words", "thin\u2009space\u2028line",
    "Café naïve crème brûlée", "Cafe\u0301 nai\u0308ve cre\u0300me", "ÀÉÎÕÜ Ørsted Łukasz Żak", "e\u0301\u0302\u0323x", "\u0301leading accent", "a\u0301", "q\u0307\u0323 \u0301 \u0301",
    "Straße STRASSE ẞ ß", "İstanbul İİ ıI", "i\u0307 I\u0307", "ΟΔΟΣ οδος Ά ΐ", "ǅ Ǆ ǆ ŉ", "ﬁne ﬂow oﬃce ﬅ", "ＦＵＬＬ ｗｉｄｔｈ １２３！", "ｶﾀｶﾅ ﾊﾞ", "① ② ⅳ Ⅻ ½ ¾ x² H₂O", "℃ ™ ㎏ ㍿ ﷺ",
    "漢字", "東京語 日本", "漢 字the漢", "我們在1990年吃了3,000個apples。", "𠀀𪚥 \U0002f800", "ひらがな カタカナ が か\u3099", "한국말", "\u1112\u1161\u11ab\u1100\u116e\u11a8", "\u1112\u1161 \u11ab", "각\u11a8",
    "😀", "a😀b 😀😀", "👩\u200d👩\u200d👧\u200d👦 family", "🇩🇪🇫🇷 ☎\ufe0f ✌🏽", "❤️‍🔥 text", "🍹🍹, lemonade 🍋.",
    "7", "1990", "1,250", "3,400,000 crowns", "12.5", "1990s", "24,", "in 1887, 1,250, and 36,", "٣٤٥ ४५", "7.45a.m.", "15%", "$3,000.50", "-273", "+1 = 2",
    "שלום אבג", "שָׁלוֹם", "سلام ابجد", "سَلَامٌ", "\u202eסוף\u202c abc", "हिन्दी हि न्", "ไทยภาษา", "Việt Nam Tiếng", "Ѐё Йй Привет",
    "zero\u200bwidth\u200cnon\u200djoiner\ufeffbom", "soft\u00adhyphen", "word\u2060joiner \u180e x", "bell\x07 null\x00 del\x7f c1\x85 \x9f", "\x1c\x1d\x1e\x1f", "a\ufffdb", "private\ue000use \U000f0000", "unassigned\u0378 \U0001fbff", "\ufdd0\uffff",
    "a" * 99, "b" * 100, "c" * 101 + " end", "the" * 40, "é" * 60, "漢" * 12, "😀" * 9,
    "[CLS] text [SEP]", "[MASK][UNK][PAD]", "the [mask] [Sep]", "<s> text </s>", "<mask> <unk> <pad>", " <mask> a<mask>b", "x <mask>", "[CLS", "</s></s>", "▁ ▁▁the a▁b", "## ##the", "Ġthe Ġ",
    "``quoted'' \"text\" 'single' ''", "`` `` ''''", "it's don't we'll I'd they've", "O'Brien's", "rock'n'roll", "( the ) (the) £5 €7 – – a–b", "well-known-baker", "semi;colon:comma,dot.", "…... !?!", "@#%&*_~^|\\/<>{}[]", "U.S.A. e.g. i.e.",
    "http://example.org/a?b=c&d=1", "snake_case camelCase", "The miller's daughter carried 24 sacks of flour across the old bridge before noon.",
    "Who painted the ceiling?", "\"Who painted the ceiling?\" asked the visitor.", "MIXED case WoRdS", "ends with newline\n", "tab\tseparated\tvalues",
]

# Of these random texts are strung together.
ALPHABET = list("aAeEtThz  \t\n.,-'\"`()019éÉßİıΣς漢字が한שا😀🍹½ﬁＡ\u0301\u0323\u200b\u200d\u00a0\u3000\x00\x1f▁#Ġ[]<>/") + ["the ", "mill", "<s>", "[SEP]", "<mask>", "1,2", "e\u0301", "\u1112\u1161\u11ab", "👩\u200d👧", "''", "``"]


def texts():
    rng = random.Random(23)
    drawn = ["".join(rng.choice(ALPHABET) for _ in range(rng.randrange(1, 24))) for _ in range(80)]
    return TEXTS + drawn


def corpus():
    paragraphs = golden_data.dataset()["data"][0]["paragraphs"]
    asked = [q["question"] for p in paragraphs for q in p["qas"]]
    return SENTENCES + [p["context"] for p in paragraphs] + asked


def word_piece(folder, lower):
    """vocab.txt: frequent words and endings of our sentences, then all of ASCII and our letters, alone and as continuations.

    Not by the trainer of tokenizers, which breaks ties by chance.
    """
    from transformers import BertTokenizerFast

    plain = " ".join(corpus())
    words = re.findall(r"[A-Za-z0-9]+", plain.lower() if lower else plain)
    whole = [w for w, n in collections.Counter(words).items() if n > 1]
    endings = ["##" + w[-k:] for k in (2, 3) for w in words if len(w) > k + 1]
    endings = [e for e, n in collections.Counter(endings).items() if n > 2]
    letters = [chr(c) for c in range(33, 127)] + list(LETTERS)
    letters = sorted({c for c in letters if not lower or c == c.lower()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    with open(os.path.join(folder, "vocab.txt"), "w", encoding="utf-8") as f:
        f.writelines(w + "\n" for w in dict.fromkeys(special + whole + endings + letters + ["##" + c for c in letters]))
    return BertTokenizerFast.from_pretrained(folder, do_lower_case=lower)


def mask(name):
    """The mask as the published tokenizers of RoBERTa, ALBERT and XLM-R have it: it takes the space before it.

    transformers 5 forgets this on saving tokenizer_config.json, and so without tokenizer.json.
    """
    from tokenizers import AddedToken

    return AddedToken(name, lstrip=True, rstrip=False, normalized=False, special=True)


def byte_level(folder):
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    t = ByteLevelBPETokenizer()
    t.train_from_iterator(corpus(), vocab_size=600, min_frequency=2, show_progress=False, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    t.save_model(folder)
    return RobertaTokenizerFast.from_pretrained(folder, mask_token=mask("<mask>"))


def rules(path):
    """A small normalization rule of SentencePiece's: a part of what its nmt_nfkc does, so that the file stays small."""
    to_space = "\t\n\r\u00a0\u2009\u2028\u3000\u200b\ufeff"
    removed = [chr(c) for c in range(1, 32) if chr(c) not in to_space] + ["\x7f", "\x8f", "\x9f"]
    folded = "ﬁﬂﬃ①②ⅳⅫ½²₂℃™㎏㍿Å" + "".join(chr(c) for c in range(0xFF01, 0xFF5F)) + "ｶﾀﾅﾊ"
    composed = ["e\u0301", "a\u0301", "u\u0308", "か\u3099", "\u1112\u1161\u11ab", "\u1112\u1161", "\u1100\u116e\u11a8"]
    pairs = [(c, " ") for c in to_space] + [(c, "") for c in removed]
    pairs += [(s, unicodedata.normalize("NFKC", s)) for s in [*folded, *composed] if s != unicodedata.normalize("NFKC", s)]
    points = lambda s: " ".join("%X" % ord(c) for c in s)
    with open(path, "w", encoding="utf-8") as f:
        f.writelines("%s\t%s\n" % (points(a), points(b)) for a, b in pairs)


def sentence_piece(path, lower, **options):
    """Trains a SentencePiece file and returns its protobuf."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    with tempfile.TemporaryDirectory() as work:
        rules(os.path.join(work, "rules.tsv"))
        plain = [s.lower() if lower else s for s in corpus() * 4 + list(LETTERS)]
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(plain), model_prefix=os.path.join(work, "m"), vocab_size=360, hard_vocab_limit=False, model_type="unigram",
            normalization_rule_tsv=os.path.join(work, "rules.tsv"), character_coverage=1.0, num_threads=1, minloglevel=2, **options,
        )
        proto = sentencepiece_model_pb2.ModelProto()
        with open(os.path.join(work, "m.model"), "rb") as f:
            proto.ParseFromString(f.read())
    # Where the training ran is nobody's business, and the file is to be the same every time.
    proto.trainer_spec.ClearField("input")
    proto.trainer_spec.ClearField("model_prefix")
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    if lower:
        # As in ALBERT's vocabulary: a figure and its comma are one piece, which its tokenizer shall not take.
        for piece in ["▁1,", "9,", "0,"]:
            proto.pieces.add(piece=piece, score=-3.0)
    with open(path, "wb") as f:
        f.write(proto.SerializeToString(deterministic=True))
    return proto


def albert(folder):
    """As the published ALBERT files were made: converter's scores, and symbols of the user stay ordinary pieces.

    transformers 5, asked to load spiece.model itself, does neither; its published tokenizer.json files have both.
    """
    from transformers import AlbertTokenizerFast
    from transformers.convert_slow_tokenizer import AlbertConverter

    symbols = dict(pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, control_symbols=["[CLS]", "[SEP]", "[MASK]"], user_defined_symbols=["(", ")", '"', "-", ".", "–", "£", "€"])
    proto = sentence_piece(os.path.join(folder, "spiece.model"), True, **symbols)
    scores = AlbertConverter.vocab(None, proto)
    return AlbertTokenizerFast(vocab=scores, _spm_precompiled_charsmap=proto.normalizer_spec.precompiled_charsmap, mask_token=mask("[MASK]"))


def xlm_roberta(folder):
    from transformers import XLMRobertaTokenizerFast

    sentence_piece(os.path.join(folder, "sentencepiece.bpe.model"), False)
    return XLMRobertaTokenizerFast.from_pretrained(folder, mask_token=mask("<mask>"))


KINDS = {
    "uncased": lambda folder: word_piece(folder, True),
    "cased": lambda folder: word_piece(folder, False),
    "byte_level": byte_level,
    "albert": albert,
    "xlm_roberta": xlm_roberta,
}


def encoded(tok, text):
    e = tok(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return e["input_ids"], [at for pair in e["offset_mapping"] for at in pair]


def digest(tok, path):
    """Every paragraph's context, then its questions: number of tokens, then id, start, end of each; 32 bits, little endian."""
    sha = hashlib.sha256()
    with open(path, encoding="utf-8") as f:
        articles = json.load(f)["data"]
    for paragraph in (p for a in articles for p in a["paragraphs"]):
        for text in [paragraph["context"]] + [q["question"] for q in paragraph["qas"]]:
            ids, offsets = encoded(tok, text)
            sha.update(struct.pack("<I", len(ids)))
            for k, token in enumerate(ids):
                sha.update(struct.pack("<3I", token, offsets[2 * k], offsets[2 * k + 1]))
    return sha.hexdigest()


def windows(hf, tok, path, shapes):
    examples, runs = hf.load_squad(path), []
    for max_len, stride in shapes:
        rows = []
        encoding = hf.encode(tok, examples, max_len, stride, False)
        for k, f in enumerate(hf.featurise(tok, examples, max_len, stride)):
            context = encoding.sequence_ids(k).index(1)
            rows.append({"question": f["q"], "ids": f["ids"].tolist(), "context_offset": context, "start": int(f["s"]), "end": int(f["e"])})
        runs.append({"max_seq_length": max_len, "doc_stride": stride, "features": rows})
    return runs


def compact(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


def saved(tok, folder):
    """tokenizer.json and tokenizer_config.json, without blanks; and the tokenizer as transformers loads them again."""
    tok.save_pretrained(folder)
    for name in ["tokenizer.json", "tokenizer_config.json"]:
        with open(os.path.join(folder, name), encoding="utf-8") as f:
            value = json.load(f)
        compact(os.path.join(folder, name), value)
    return type(tok).from_pretrained(folder)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--peers", default=os.path.join(here, "../../shared/peers"), help="folder of hf_squad.py")
    ap.add_argument("--squad", default=os.path.join(here, "../../shared/data/squad"), help="folder of the SQuAD files")
    ap.add_argument("--out", default=os.path.join(here, "../worker/data/tests/golden/tokenizers"))
    a = ap.parse_args()
    sys.path.insert(0, a.peers)
    import hf_squad

    os.makedirs(a.out, exist_ok=True)
    cases, runs, hashes = texts(), {}, {}
    compact(os.path.join(a.out, "texts.json"), cases)
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as data:
        json.dump(golden_data.dataset(), data)
        data.flush()
        for kind, build in KINDS.items():
            folder = os.path.join(a.out, kind)
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            first = build(folder)
            tok = saved(first, folder)
            expected = [encoded(tok, text) for text in cases]
            assert expected == [encoded(first, text) for text in cases], kind + ": saving changed the tokenizer"
            compact(os.path.join(folder, "expected.json"), expected)
            if kind in ("byte_level", "albert", "xlm_roberta"):
                runs[kind] = windows(hf_squad, tok, data.name, [(48, 8), (72, 20), (192, 64)])
            for name in sorted(os.listdir(a.squad)) if os.path.isdir(a.squad) else []:
                hashes.setdefault(name, {})[kind] = digest(tok, os.path.join(a.squad, name))
    compact(os.path.join(a.out, "windows.json"), {"dataset": golden_data.dataset(), "runs": runs})
    if hashes:
        compact(os.path.join(a.out, "shared.json"), hashes)


if __name__ == "__main__":
    main()
