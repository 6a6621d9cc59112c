from typing import Any

import polars as pl
import pytest

from pipeline.spec.spec import Spec


@pytest.fixture(scope="session")
def spec() -> Spec:
    """`feed` learns click and watch, `player` click and like, `search` like."""
    column_types = {"id": "int64", "user": "int64", "video": "int64", "ms": "int64", "tab": "int64", "clicked": "int64"}
    return Spec.model_validate(
        {
            "name": "tiny",
            "logs": {
                "impression": {
                    "files": "*.csv",
                    "columns": column_types,
                    "id": ["id"],
                    "user": "user",
                    "video": "video",
                    "time": "ms",
                    "outcomes": ["clicked"],
                }
            },
            "tables": {"user": {"encode": "hash", "rows": 8, "dim": 4}},
            "features": {"user": {"kind": "id", "table": "user"}},
            "objectives": {
                "click": {"kind": "binary", "label": "clicked"},
                "like": {"kind": "binary", "label": "clicked < 0"},
                "watch": {"kind": "regression", "label": "clicked * 2", "where": "clicked = 1", "unit": "s"},
            },
            "scenes": {
                "feed": {"where": "tab = 0", "weights": {"click": 1.0, "watch": 1.0}},
                "player": {"where": "tab = 1", "weights": {"click": 1.0, "like": 1.0}},
                "search": {"where": "tab = 2", "weights": {"like": 1.0}},
            },
        }
    )


@pytest.fixture(scope="session")
def predictions() -> pl.LazyFrame:
    """240 rows of 40 users: each of the 4 + 2 literal rows below 40 times, once per user.

    Feed: clicks predicted 0.8 and 0.4, no clicks 0.4 and 0.2; the clicks watched 4 s and 2 s, predicted 3 s and 2 s.
    Player: a click predicted 0.1, no click 0.7; no like ever. Search: no rows.
    """
    row: dict[str, list[Any]] = {
        "scene_feed": [True, True, True, True, False, False],
        "scene_player": [False, False, False, False, True, True],
        "scene_search": [False, False, False, False, False, False],
        "label_click": [1, 1, 0, 0, 1, 0],
        "pred_click": [0.8, 0.4, 0.4, 0.2, 0.1, 0.7],
        "mask_click": [True, True, True, True, True, True],
        "label_like": [0, 0, 0, 0, 0, 0],
        "pred_like": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
        "mask_like": [True, True, True, True, True, True],
        "label_watch": [4, 2, None, None, 9, None],  # the player does not learn watch
        "pred_watch": [3, 2, 7, 7, 7, 7],
        "mask_watch": [True, True, False, False, True, False],
    }
    schema = {name: pl.Boolean if name.startswith(("scene", "mask")) else pl.Float32 for name in row}
    users = pl.LazyFrame({"user_id": range(40)}, {"user_id": pl.Int64})
    return users.join(pl.LazyFrame(row, schema), how="cross").with_row_index("sample_id")
