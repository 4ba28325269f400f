"""Run a study: steps in order, each once, into one folder that describes itself and can be moved.

runs/x/study.yaml                 the resolved configuration
runs/x/run.json                   versions, commit, seeds, dtype, and of every step: key, status, cause, outputs
runs/x/steps/<name>/              a step's own output, resumable
runs/x/tables/<table>.parquet     (and .csv) tidy tables, see study.schema
runs/x/figures/<stem>.pdf         (and svg, png, csv, txt)
runs/x/report.html
"""
