"""The formulas of the method as pure functions on tensors: no model, no I/O, no argument changed."""

from cliper.ops.attention import AttentionAccumulator, ablated_attention
from cliper.ops.class_choice import choose_classes
from cliper.ops.class_maps import build_text_classifier, class_maps, class_probabilities, expand_synonyms
from cliper.ops.cleaning import clean_labels
from cliper.ops.compensation import compensate
from cliper.ops.edge_aware import smooth_along_edges
from cliper.ops.entropy import has_low_entropy, prediction_entropy
from cliper.ops.facility_location import facility_location
from cliper.ops.fusion import fuse_values, fused_attention
from cliper.ops.label_propagation import neighbor_weights, propagate_labels
from cliper.ops.labels import assign_labels, class_confidence, class_scores, label_strips
from cliper.ops.metrics import class_iou, confusion_matrix, mean_accuracy, mean_iou, mean_iou_all, pixel_accuracy
from cliper.ops.position_embedding import interpolate_position_embedding
from cliper.ops.recipes import RECIPES, Recipe
from cliper.ops.temporal import temporal_mean, unchanged_weights
from cliper.ops.tiles import TileBlender, tile_starts
from cliper.ops.views import average_views
from cliper.ops.windows import Window, WindowMerger, average_windows, window_grid

__all__ = [
    "RECIPES",
    "AttentionAccumulator",
    "Recipe",
    "TileBlender",
    "Window",
    "WindowMerger",
    "ablated_attention",
    "assign_labels",
    "average_views",
    "average_windows",
    "build_text_classifier",
    "choose_classes",
    "class_confidence",
    "class_iou",
    "class_maps",
    "class_probabilities",
    "class_scores",
    "clean_labels",
    "compensate",
    "confusion_matrix",
    "expand_synonyms",
    "facility_location",
    "fuse_values",
    "fused_attention",
    "has_low_entropy",
    "interpolate_position_embedding",
    "label_strips",
    "mean_accuracy",
    "mean_iou",
    "mean_iou_all",
    "neighbor_weights",
    "pixel_accuracy",
    "prediction_entropy",
    "propagate_labels",
    "smooth_along_edges",
    "temporal_mean",
    "tile_starts",
    "unchanged_weights",
    "window_grid",
]
