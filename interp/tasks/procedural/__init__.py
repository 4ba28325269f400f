"""Procedural compliance: does a scenario follow a procedure? Generated instances, a rule engine, the user's own data.

latent, vocabulary   what an instance consists of, and its words      engine      rules -> label
generate, perturb    originals and their edits                        cells       the evaluation grid
render, replies      an instance as text, a reply as label and trace  documents   training text
records, task        rows of a file, examples of the grid             reporting   tables of answers
dataset              data sets: generated, deduplicated, audited      order_swaps twins that swap two steps
"""

from interp.tasks.procedural.cells import CELL_ROLES, CELLS, grid
from interp.tasks.procedural.dataset import audit_records, check_leakage, generate_records
from interp.tasks.procedural.decisions import DECISION_SITES, decision_sites, gold_reply
from interp.tasks.procedural.order_swaps import twin_examples
from interp.tasks.procedural.perturb import PERTURBATIONS
from interp.tasks.procedural.replies import MAX_NEW_TOKENS, decision_prefix, labels, parse, score
from interp.tasks.procedural.reporting import GROUP, counterfactuals, notes, report
from interp.tasks.procedural.task import examples, load_records
from interp.tasks.procedural.vocabulary import LABELS, word_list

__all__ = [
    "CELLS", "CELL_ROLES", "DECISION_SITES", "GROUP", "LABELS", "MAX_NEW_TOKENS", "PERTURBATIONS", "audit_records",
    "check_leakage", "counterfactuals", "decision_prefix", "decision_sites", "examples", "generate_records",
    "gold_reply", "grid", "labels", "load_records", "notes", "parse", "report", "score", "twin_examples",
    "word_list",
]  # fmt: skip
