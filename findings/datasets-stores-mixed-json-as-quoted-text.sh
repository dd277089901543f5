#!/usr/bin/env bash
# A JSON Lines field that is a number in some rows and a text in others comes out of `datasets` as
# Parquet with JSON inside the cells: other readers get the texts with their quotes.
#
# Seen 2026-11-30 with datasets 5.2.0, pyarrow 26.0.1, pandas 3.1.1: load_dataset("json") used to
# raise on such a field; now it loads as the feature Json(), and the rows of the dataset are 1 and
# "yes". Written with to_parquet, the column is Arrow's extension type arrow.json, whose storage is
# text. pyarrow's to_pylist and pandas give the strings '1' and '"yes"', the latter with its quotes,
# and say nothing. A label read so is a class of its own, spelt with quotes. One would guess '1' and
# 'yes', or an error in one of the two programs.
#
# Prints what it sees; exits with 1 if any of it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export HF_HUB_OFFLINE=1 HF_HOME="$work/hf" PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m venv v
v/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.1 pandas==3.1.1

cat > mixed.jsonl <<'JSONL'
{"text": "Row 0 is fine", "label": 1}
{"text": "Row 1 is fine", "label": "yes"}
JSONL
cat > read.py <<'PY'
import datasets
import pandas as pd
import pyarrow.parquet as pq

datasets.disable_progress_bars()
loaded = datasets.load_dataset("json", data_files="mixed.jsonl", split="train")
loaded.to_parquet("mixed.parquet")
table = pq.read_table("mixed.parquet")
print("datasets:", loaded.features["label"], loaded["label"][:])
print("pyarrow: ", table.schema.field("label").type, table["label"].to_pylist())
print("pandas:  ", pd.read_parquet("mixed.parquet")["label"].tolist())
assert loaded["label"][:] == [1, "yes"]
assert str(table.schema.field("label").type) == "extension<arrow.json>"
assert table["label"].to_pylist() == ["1", '"yes"']
assert pd.read_parquet("mixed.parquet")["label"].tolist() == ["1", '"yes"']
PY
v/bin/python read.py
echo "as seen"
