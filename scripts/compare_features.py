#!/usr/bin/env python3
"""Holds a dump of features against those of a Hugging Face pipeline.

  squadctl data featurize --model MODEL --data F --max-seq-length 384 --doc-stride 128 --window overlap --dump ours.jsonl
  python scripts/compare_features.py --peers FOLDER --model MODEL --data F --max-seq-length 384 --doc-stride 128 ours.jsonl

FOLDER holds hf_squad.py, whose `featurise` is the training preparation of transformers' question-answering
example. Prints one JSON object: windows of both sides and how many differ in tokens and in gold positions; exits
with 1 where the number of windows or any token differs, or a gold position in another way than the one intended
(an answer that starts in a window's last token is pointed at there, and not at the separator behind it).
"""
import argparse, json, sys


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("dump")
    ap.add_argument("--peers", required=True)
    ap.add_argument("--model", required=True)
    ap.add_argument("--data", required=True)
    ap.add_argument("--max-seq-length", type=int, default=384)
    ap.add_argument("--doc-stride", type=int, default=128)
    a = ap.parse_args()
    sys.path.insert(0, a.peers)
    import hf_squad

    theirs = hf_squad.featurise(hf_squad.load_tokenizer(a.model), hf_squad.load_squad(a.data), a.max_seq_length, a.doc_stride)
    with open(a.dump) as lines:
        ours = [json.loads(line) for line in lines]
    tokens = spans = last = 0
    for mine, peer in zip(ours, theirs):
        if mine["input_ids"] != peer["ids"][: len(mine["input_ids"])].tolist() or peer["mask"].sum() != len(mine["input_ids"]):
            tokens += 1
        elif (mine["start"], mine["end"]) != (peer["s"], peer["e"]):
            if peer["s"] == len(mine["input_ids"]) - 1 and mine["start"] == peer["s"] - 1 and mine["end"] == mine["start"]:
                last += 1
            else:
                spans += 1
    report = {"windows": len(ours), "peer_windows": len(theirs), "other_tokens": tokens, "other_spans": spans, "starts_in_the_last_token": last}
    print(json.dumps(report))
    return int(len(ours) != len(theirs) or tokens > 0 or spans > 0)


if __name__ == "__main__":
    sys.exit(main())
