#!/usr/bin/env python3
"""Renders every template of a folder over tests/golden/chat_conversations.json and writes
tests/golden/chat_templates.json: of every rendering its length and the start of its sha256 (the templates' licences
do not let their text into the repository), or the message it was refused with.

Usage: tools/golden/chat_templates.py [FOLDER]   (made with jinja2 3.1.6, transformers 5.23.0)
"""
import hashlib
import json
import pathlib
import sys

from hugging_face_jinja import NOW, VERSIONS, render

ROOT = pathlib.Path(__file__).resolve().parents[2]


def summary(result):
    if "output" not in result:
        return "!" + result["raised"] if "raised" in result else "error"
    data = result["output"].encode()
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()[:16]}"


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT.parent / "shared/data/templates")
    conversations = json.loads((ROOT / "tests/golden/chat_conversations.json").read_text())
    rows = []
    for path in sorted(folder.glob("*.jinja")):
        source = path.read_text()
        row = [summary(render(source, variables)) for variables in conversations.values()]
        rows.append(json.dumps(path.name) + ": " + json.dumps(row, ensure_ascii=False))
    head = f'{{"versions": {json.dumps(VERSIONS)}, "now": {NOW}, "templates": {{\n'
    path = ROOT / "tests/golden/chat_templates.json"
    path.write_text(head + ",\n".join(rows) + "\n}}\n")


if __name__ == "__main__":
    main()
