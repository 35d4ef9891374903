#!/usr/bin/env bash
# Validates the Kubernetes manifests. See --help.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'H'
usage: scripts/check_kubernetes.sh

Builds every overlay of deploy/kubernetes with `kubectl kustomize`, renders jobs with `squadctl render kubernetes`, and holds all
objects against the schemas of two versions of Kubernetes, in which unknown fields are errors. JobSets, which those schemas do
not know, are checked by the Job inside.

Needs kubectl, and for the schemas the Python package kubernetes-validate in KUBERNETES_VALIDATE_PYTHON (default: python3); what
needs one that is missing is skipped with a loud word. Squadctl is the one of target/release or target/debug that was built last.
KUBERNETES_VERSIONS (default: "1.33 1.36") are the versions.
H
}

case ${1:-} in
  '') ;;
  -h|--help) usage; exit 0 ;;
  *) echo "check_kubernetes: unknown option $1 (see --help)" >&2; exit 2 ;;
esac

say() { printf 'check_kubernetes: %s\n' "$*" >&2; }
python=${KUBERNETES_VALIDATE_PYTHON:-python3}
read -r -a versions <<<"${KUBERNETES_VERSIONS:-1.33 1.36}"

command -v kubectl >/dev/null 2>&1 || { say "SKIPPED: there is no kubectl"; exit 0; }
squadctl=
for profile in release debug; do
  built=${CARGO_TARGET_DIR:-$PWD/target}/$profile/squadctl
  if [ -x "$built" ] && { [ -z "$squadctl" ] || [ "$built" -nt "$squadctl" ]; }; then squadctl=$built; fi
done
[ -n "$squadctl" ] || { say "there is no squadctl: cargo build --workspace --bins"; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for overlay in deploy/kubernetes/base deploy/kubernetes/overlays/*; do
  kubectl kustomize "$overlay" >"$work/overlay-$(basename "$overlay").yaml"
done
spec=deploy/kubernetes/job/spec.yaml
render() { local name=$1; shift; "$squadctl" render kubernetes "$spec" --image squad-worker:0.1.0 "$@" >"$work/render-$name.yaml"; }
render job
render slots -np 8 --slots 4 --threads 2 --memory 16Gi
render gpu --gpu
render gpu-slots -np 4 --slots 2 --gpu
render jobset --kind jobset
render jobset-gpu --kind jobset --gpu

"$python" -c 'import kubernetes_validate' 2>/dev/null || {
  say "all overlays build; SKIPPED: $python has no kubernetes-validate (pip install kubernetes-validate) to validate them"
  exit 0
}
"$python" - "$work" "${versions[@]}" <<'P'
"""Validates every document of every file of a folder: FOLDER VERSION..."""
import pathlib
import sys

import kubernetes_validate
import yaml

folder, versions = pathlib.Path(sys.argv[1]), sys.argv[2:]
checked = 0


def check(name, document, version):
    global checked
    if document["kind"] == "JobSet":
        for part in document["spec"]["replicatedJobs"]:
            metadata = {"name": "inside-of-" + document["metadata"]["name"]}
            check(name, {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": part["template"]["spec"]}, version)
        return
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(part) for part in error.path)
        sys.exit(f"check_kubernetes: {name}: {document['kind']} under {version}: {where}: {error.message}")
    checked += 1


def pods(documents):
    """The pod templates of a manifest's workers."""
    for document in documents:
        if document["kind"] == "Job":
            yield document["spec"]["template"]["spec"]
        if document["kind"] == "JobSet":
            yield document["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


files = {path.stem: [d for d in yaml.safe_load_all(path.read_text()) if d] for path in sorted(folder.glob("*.yaml"))}
for name, documents in files.items():
    for document in documents:
        for version in versions:
            check(name, document, version)
# The overlays for GPUs are patches; render writes the same.
for kind in ("gpu", "jobset-gpu"):
    there, here = (next(pods(files[name])) for name in ("overlay-" + kind, "render-" + kind))
    same = there["containers"][0]["resources"] == here["containers"][0]["resources"]
    if not same or there["tolerations"] != here["tolerations"]:
        sys.exit(f"check_kubernetes: overlays/{kind} gives pods other resources or tolerations than squadctl render --gpu")
print(f"check_kubernetes: {len(files)} manifests, {checked} objects valid under " + " and ".join(versions))
P
