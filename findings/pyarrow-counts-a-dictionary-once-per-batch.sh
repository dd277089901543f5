#!/usr/bin/env bash
# `nbytes` of a record batch with a dictionary column counts the whole dictionary in every batch:
# the batches of a Parquet file written from a pandas categorical add up to many times the table.
#
# Seen 2026-11-30 with pyarrow 26.0.1, pandas 3.1.1: 20,000 distinct texts of 1,000 characters as a
# pandas `category`, written with to_parquet. The column comes back as dictionary<...>; the table
# read at once has nbytes of about 20 MB; the batches of iter_batches(1000), which hold the same
# rows, have about 20 times that in sum, since each carries the full dictionary by reference and
# counts it as its own. Whoever bounds memory or progress by adding up `batch.nbytes` while reading
# refuses a file that fits easily. `get_total_buffer_size` does the same.
#
# Prints what it sees; exits with 1 if any of it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m venv v
v/bin/pip install --quiet pyarrow==26.0.1 pandas==3.1.1

cat > count.py <<'PY'
import pandas as pd
import pyarrow.parquet as pq

texts = [f"{i:06d}" + "x" * 994 for i in range(20_000)]
pd.DataFrame({"text": pd.Categorical(texts)}).to_parquet("texts.parquet")
table = pq.read_table("texts.parquet")
batches = list(pq.ParquetFile("texts.parquet").iter_batches(1000))
print("column type:", table.schema.field("text").type)
whole, added = table.nbytes, sum(batch.nbytes for batch in batches)
buffers = sum(batch.get_total_buffer_size() for batch in batches)
print(f"table {whole / 1e6:.0f} MB; {len(batches)} batches add up to {added / 1e6:.0f} MB "
      f"(get_total_buffer_size: {buffers / 1e6:.0f} MB)")
assert str(table.schema.field("text").type).startswith("dictionary")
assert sum(batch.num_rows for batch in batches) == table.num_rows == 20_000
assert added > 5 * whole
assert buffers > 5 * whole
PY
v/bin/python count.py
echo "as seen"
