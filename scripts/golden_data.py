#!/usr/bin/env python3
"""Makes the golden values that squad-data is tested against, from Python's own programs.

  python scripts/golden_data.py [--peers ../shared/peers] [--out worker/data/tests/golden]

features.json   Hugging Face's windows and gold positions (hf_squad.featurise) with a small vocabulary
answers.json    its answers from random logits (hf_squad.postprocess), versions 1.1 and 2.0
metric.json     figures of the official metric (official_metric.evaluate) and numpy's histograms, on random sets
normalise.json  normalised texts (official_metric.normal), many of them not ASCII

All sentences were written for this file. Needs numpy, tokenizers and transformers.
"""
import argparse, json, os, random, sys, tempfile

PARAGRAPHS = [
    (
        "The ferry left the harbour at 7.45 in the morning. Captain Ingrid Ørsted had 62 passengers and 14 bicycles on board. "
        "Fog came down near the lighthouse, so the crossing took 3 hours instead of 90 minutes.",
        [
            ("When did the ferry leave?", "7.45"),
            ("Who was the captain?", "Ingrid Ørsted"),
            ("  How long did the crossing take?", "3 hours"),
            ("Which vehicle first?", "The ferry"),
            ("How long would it usually last?", "90 minutes."),
            ("How many dogs were on board?", None),
        ],
    ),
    (
        "In the café 🍋 e\u0301toile they sell lemonade 🍹🍹, naïve paintings and 漢字 stamps. "
        "A stamp costs 250 yen; İpek bought five. Straße and ΟΔΟΣ are words on them.",
        [
            ("What do they sell with 漢字?", "stamps"),
            ("What is the name of the place?", "e\u0301toile"),
            ("What is drunk there?", "lemonade 🍹🍹"),
            ("Which script is on the stamps?", "漢字"),
            ("Who bought five?", "İpek"),
            ("What did the dog do?", None),
        ],
    ),
    ("Snow", [("What fell?", "Snow"), ("Why?", None)]),
]
SHAPES = [(20, 4), (24, 8), (32, 0), (40, 12), (192, 32)]


def dataset():
    paragraphs, n = [], 0
    for context, asked in PARAGRAPHS:
        qas = []
        for question, answer in asked:
            answers = [] if answer is None else [{"text": answer, "answer_start": context.index(answer)}]
            qas.append({"id": "q%02d" % n, "question": question, "answers": answers, "is_impossible": answer is None})
            n += 1
        paragraphs.append({"context": context, "qas": qas})
    return {"version": "golden", "data": [{"title": "Golden", "paragraphs": paragraphs}]}


def vocabulary(data):
    text = json.dumps(data, ensure_ascii=False).lower()
    letters = sorted({c for c in text if c.isalnum() and c not in "漢🍋ø"})
    # The questions' words are whole, so that a short window has room; others come in pieces.
    questions = " ".join(q["question"] for p in data["data"][0]["paragraphs"] for q in p["qas"]).lower()
    words = [w.strip("?.,") for w in questions.split() if w.isascii()]
    words += "captain harbour passengers morning stamp five cross word ##s ##ing ##les hour minute 90".split()
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + sorted(set(words)) + list(".,?;") + letters + ["##" + c for c in letters]


def tokenizer(vocab):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {}
    for word in vocab:
        ids.setdefault(word, len(ids))
    t = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    t.normalizer = normalizers.BertNormalizer(lowercase=True)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return PreTrainedTokenizerFast(tokenizer_object=t, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")


def features(hf, tok, data, path):
    examples, runs = hf.load_squad(path), []
    for max_len, stride in SHAPES:
        rows = []
        for f in hf.featurise(tok, examples, max_len, stride):
            rows.append({"question": f["q"], "ids": f["ids"].tolist(), "types": f["types"].tolist(), "start": int(f["s"]), "end": int(f["e"])})
        runs.append({"max_seq_length": max_len, "doc_stride": stride, "features": rows})
    return runs


def answers(hf, tok, path):
    import numpy as np

    examples, runs, rng = hf.load_squad(path), [], np.random.RandomState(11)
    for max_len, stride, n_best, max_answer in [(20, 4, 20, 30), (24, 8, 3, 5), (192, 32, 20, 4)]:
        feats = hf.featurise(tok, examples, max_len, stride, train=False)
        # The first position is raised, so that "no answer" wins now and then.
        draw = lambda f: (rng.randn(len(f["ids"])) * 3 + 7 * (np.arange(len(f["ids"])) == 0)).round(3).astype(np.float32)
        starts, ends = [draw(f) for f in feats], [draw(f) for f in feats]
        run = {"max_seq_length": max_len, "doc_stride": stride, "n_best": n_best, "max_answer_length": max_answer}
        # Shortest decimal form of the single-precision value: reads back as the same value.
        run["starts"], run["ends"] = ([[float(str(x)) for x in row] for row in part] for part in (starts, ends))
        run["v1"], _ = hf.postprocess(examples, feats, starts, ends, False, n_best, max_answer)
        run["v2"], run["null_odds"] = hf.postprocess(examples, feats, starts, ends, True, n_best, max_answer)
        runs.append(run)
    return runs


WORDS = ["the", "An", "a", "Cat's", "cats", "1990", "3.5", "Straße", "STRASSE", "ΟΔΟΣ", "é", "e\u0301", "漢字", "🍋", "U.S.", "İzmir", "–", "", "well-known", "\u3000x", "²", "the漢"]


def histogram(na, ids):
    """Counts of the plot of null odds: matplotlib's, which are numpy's."""
    import numpy as np

    return np.histogram([na[q] for q in ids if q in na], bins=20, range=(0.0, 1.0))[0].tolist()


def expected(metric, case):
    """The official figures. Ids with null odds that the data lack are left out: the curves' code stops at them, the rest passes them over."""
    data = [{"paragraphs": [{"qas": [{"id": q, "answers": [{"text": t} for t in gold]} for q, gold in case["questions"].items()]}]}]
    call = lambda na, curves: metric.evaluate(data, case["predictions"], na, case["threshold"], curves)
    na = case["na_prob"]
    if na is None:
        return call(None, True)
    out = call({q: p for q, p in na.items() if q in case["questions"]}, True)
    assert {k: v for k, v in out.items() if not k.startswith("pr_")} == call(na, False)
    return out


def cases(metric, rng, count, most_questions):
    """Random sets. Every fourth has no unanswerable question, as version 1.1 has; odds are often equal, some not between 0 and 1."""
    out = []
    phrase = lambda n: " ".join(rng.choice(WORDS) for _ in range(rng.randrange(n)))
    for k in range(count):
        case = {"questions": {}, "predictions": {}, "na_prob": {}}
        for i in range(rng.randrange(1, most_questions + 1)):
            gold = [] if k % 4 and rng.random() < 0.4 else [phrase(5) for _ in range(rng.randrange(1, 4))]
            case["questions"]["c%d" % i] = gold
            if rng.random() < 0.93:
                case["predictions"]["c%d" % i] = "" if rng.random() < 0.2 else rng.choice(gold) if gold and rng.random() < 0.5 else phrase(5)
            if rng.random() < 0.95:
                case["na_prob"]["c%d" % i] = rng.choice([0.0, -0.0, 1.0, 0.5, 0.35, -2.5, 7, round(rng.random(), 3)])
        if rng.random() < 0.15:
            case["predictions"]["x"], case["na_prob"]["x"] = phrase(5), rng.choice([0.0, 0.5, 1.0])
        shuffled = list(case["na_prob"].items())
        rng.shuffle(shuffled)
        case["na_prob"] = dict(shuffled) if rng.random() < 0.8 else None
        case["threshold"] = rng.choice([1.0, 0.5, 0.0])
        # Eleven decimals keep the file small; the comparison takes nine.
        case["expected"] = {key: round(value, 11) for key, value in expected(metric, case).items()}
        if case["na_prob"] is not None:
            kinds = {"HasAns": lambda gold: gold, "NoAns": lambda gold: not gold}
            case["histograms"] = {name: histogram(case["na_prob"], [q for q, gold in case["questions"].items() if kind(gold)]) for name, kind in kinds.items()}
        out.append(case)
    return out


def normalised(metric, rng):
    alphabet = list("aAnN theTHE .,-_'\"!🍋éÉe\u0301İıßΣςσñ漢の\u00a0\u3000\u2009\x1c\x85²½ⅣⓐⒶ\u093f\u200b–“”ǅﬁ٣") + ["the ", "a ", "an ", " The "]
    texts = ["".join(rng.choice(alphabet) for _ in range(rng.randrange(16))) for _ in range(150)]
    return [[t, metric.normal(t)] for t in texts]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--peers", default=os.path.join(here, "../../shared/peers"), help="folder of hf_squad.py and official_metric.py")
    ap.add_argument("--out", default=os.path.join(here, "../worker/data/tests/golden"))
    a = ap.parse_args()
    sys.path.insert(0, a.peers)
    import hf_squad, official_metric

    data = dataset()
    vocab = list(dict.fromkeys(vocabulary(data)))
    tok = tokenizer(vocab)

    def write(name, value):
        with open(os.path.join(a.out, name), "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")

    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as f:
        json.dump(data, f)
        f.flush()
        write("features.json", {"vocabulary": vocab, "dataset": data, "runs": features(hf_squad, tok, data, f.name)})
        write("answers.json", answers(hf_squad, tok, f.name))
    write("metric.json", {"sets": cases(official_metric, random.Random(8), 40, 30), "tiny": cases(official_metric, random.Random(9), 400, 4)})
    write("normalise.json", normalised(official_metric, random.Random(7)))


if __name__ == "__main__":
    main()
