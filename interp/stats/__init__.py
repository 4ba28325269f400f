"""Statistics that every analysis uses: pure functions of arrays, seeds explicit, an interval with every number.

`groups=` is mandatory everywhere: the independent unit of each example, or None to say that examples are
independent. Intervals that may be resampled take one `sampling=Sampling(seed, n_resamples, confidence, method)`, those
in closed form `confidence=`; tests by permutation take `seed=`.
"""

from interp.stats._check import FewGroupsWarning, NoWidthWarning, Seed, UndefinedDrawsWarning, UnstableRatioWarning
from interp.stats.agreement import Kappa, weighted_kappa
from interp.stats.band import band_of, picked_among, simultaneous_band
from interp.stats.bootstrap import cluster_mean, cluster_means, paired_difference
from interp.stats.calibration import (
    CalibrationError,
    ReliabilityBin,
    brier,
    calibration_error,
    confidence_on_errors,
    equal_mass_bins,
    reliability_table,
)
from interp.stats.chance import ChanceRow, chance_row, items_needed
from interp.stats.clustered import cluster_se, cluster_t, design_effect, rate_on, wilson_clustered
from interp.stats.comparison import Comparison, ItemComparison, compare_items, compare_paired
from interp.stats.contrast import rate_contrast
from interp.stats.decomposition import Decomposition, decompose_change, midpoint_decomposition
from interp.stats.design import SHAPES, Design, group_sizes
from interp.stats.detection import Detection, signal_detection
from interp.stats.effect_size import cliffs_delta, cohen_dz
from interp.stats.equivalence import MARGIN, Equivalence, tost_paired, tost_rates
from interp.stats.estimate import CONFIDENCE, N_RESAMPLES, NO_SPREAD, Estimate, Estimates, Sampling
from interp.stats.hierarchy import Hierarchical, hierarchical
from interp.stats.intervals import (
    clopper_pearson,
    newcombe,
    square_and_add,
    wilson,
    zero_event_limit,
)
from interp.stats.jackknife import RULE, effective_groups, jackknife_limits
from interp.stats.logistic import LogisticFit, logistic_regression
from interp.stats.mean_test import MeanTest, mean_test
from interp.stats.minimal_pairs import MinimalPairs, minimal_pairs
from interp.stats.multiplicity import ALPHA, benjamini_hochberg, holm, max_null_p, permutation_p, rejects, smallest_p
from interp.stats.operating_point import tpr_at_fpr
from interp.stats.paired import McNemar, PairedTable, mcnemar, newcombe_paired
from interp.stats.permute import permute_labels
from interp.stats.platt import Platt, fit_platt
from interp.stats.pooled import RandomEffects, random_effects, standard_errors
from interp.stats.promises import Promise, Verification, verify
from interp.stats.ranking import ClassEstimate, auroc, auroc_difference
from interp.stats.ratio import Ratio, ratio_difference, ratio_of_means
from interp.stats.resample import Draws, resample_sums, resample_weights
from interp.stats.signflip import SignFlip, TooFewFlipsWarning, sign_flip
from interp.stats.surface import SurfaceReliance, surface_reliance

__all__ = [
    "ALPHA",
    "CONFIDENCE",
    "MARGIN",
    "NO_SPREAD",
    "N_RESAMPLES",
    "RULE",
    "SHAPES",
    "CalibrationError",
    "ChanceRow",
    "ClassEstimate",
    "Comparison",
    "Decomposition",
    "Design",
    "Detection",
    "Draws",
    "Equivalence",
    "Estimate",
    "Estimates",
    "FewGroupsWarning",
    "Hierarchical",
    "ItemComparison",
    "Kappa",
    "LogisticFit",
    "McNemar",
    "MeanTest",
    "MinimalPairs",
    "NoWidthWarning",
    "PairedTable",
    "Platt",
    "Promise",
    "RandomEffects",
    "Ratio",
    "ReliabilityBin",
    "Sampling",
    "Seed",
    "SignFlip",
    "SurfaceReliance",
    "TooFewFlipsWarning",
    "UndefinedDrawsWarning",
    "UnstableRatioWarning",
    "Verification",
    "auroc",
    "auroc_difference",
    "band_of",
    "benjamini_hochberg",
    "brier",
    "calibration_error",
    "chance_row",
    "cliffs_delta",
    "clopper_pearson",
    "cluster_mean",
    "cluster_means",
    "cluster_se",
    "cluster_t",
    "cohen_dz",
    "compare_items",
    "compare_paired",
    "confidence_on_errors",
    "decompose_change",
    "design_effect",
    "effective_groups",
    "equal_mass_bins",
    "fit_platt",
    "group_sizes",
    "hierarchical",
    "holm",
    "items_needed",
    "jackknife_limits",
    "logistic_regression",
    "max_null_p",
    "mcnemar",
    "mean_test",
    "midpoint_decomposition",
    "minimal_pairs",
    "newcombe",
    "newcombe_paired",
    "paired_difference",
    "permutation_p",
    "permute_labels",
    "picked_among",
    "random_effects",
    "rate_contrast",
    "rate_on",
    "ratio_difference",
    "ratio_of_means",
    "rejects",
    "reliability_table",
    "resample_sums",
    "resample_weights",
    "sign_flip",
    "signal_detection",
    "simultaneous_band",
    "smallest_p",
    "square_and_add",
    "standard_errors",
    "surface_reliance",
    "tost_paired",
    "tost_rates",
    "tpr_at_fpr",
    "verify",
    "weighted_kappa",
    "wilson",
    "wilson_clustered",
    "zero_event_limit",
]
