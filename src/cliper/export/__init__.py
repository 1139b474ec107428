"""Export of a CLIP with the method as graphs for ONNX Runtime and OpenVINO; the words stay an input."""

from cliper.export.folder import FORMATS, PRECISIONS, export_model

__all__ = ["FORMATS", "PRECISIONS", "export_model"]
