"""Images in, ranked labels out, from one `model.onnx`; needs numpy, Pillow and onnxruntime, no torch."""

from saccade.predict.inputs import inputs_of, pixels_of, read_file
from saccade.predict.predictor import Answer, Predictor, model_file
from saccade.predict.tables import check_out, write_answers
from saccade.spreadsheet import from_spreadsheet, spreadsheet_safe

__all__ = [
    "Answer",
    "Predictor",
    "check_out",
    "from_spreadsheet",
    "inputs_of",
    "model_file",
    "pixels_of",
    "read_file",
    "spreadsheet_safe",
    "write_answers",
]
