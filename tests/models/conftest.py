import pytest

from pipeline.spec.spec import Spec


@pytest.fixture
def spec() -> Spec:
    """Two scenes that share objectives, and two tables that are shared by features, one of each pooling."""
    return Spec.model_validate(
        {
            "name": "small",
            "logs": {
                "impression": {
                    "files": "log",
                    "columns": {
                        "user": "int64",
                        "video": "int64",
                        "time": "int64",
                        "click": "bool",
                        "play_s": "float32",
                    },
                    "id": ["user", "video", "time"],
                    "user": "user",
                    "video": "video",
                    "time": "time",
                    "outcomes": ["click", "play_s"],
                }
            },
            "tables": {
                "tag": {"encode": "vocab", "dim": 2, "pooling": "sum"},
                "video": {"encode": "hash", "rows": 7, "dim": 3, "pooling": "mean"},
            },
            "features": {
                "video": {"kind": "id", "table": "video"},
                "tags": {"kind": "id_list", "table": "tag"},
                "age": {"kind": "dense"},
                "watched": {"kind": "history", "table": "video", "of": "video", "last": 3},
                "main_tag": {"kind": "id", "table": "tag"},
                "hour": {"kind": "dense"},
            },
            "objectives": {
                "like": {"kind": "binary", "label": "like"},
                "click": {"kind": "binary", "label": "click"},
                "play": {"kind": "regression", "label": "play_s", "transform": "log1p"},
            },
            "scenes": {
                "list": {"where": "page = 'list'", "weights": {"click": 1.0, "play": 0.5, "like": 4.0}},
                "none": {"where": "page = 'none'", "weights": {}},
                "full": {"where": "page = 'full'", "weights": {"play": 2.0, "like": 3.0}},
            },
        }
    )
