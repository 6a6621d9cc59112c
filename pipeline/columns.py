"""Every name that Strata gives a column."""

from pipeline.spec.spec import Spec

# Of impressions, events and samples while they are built; a spec's SQL may name them.
IMPRESSION_TIME, DAY, LOCAL_DAY, EVENT_TIME = "impression_time", "day", "local_day", "event_time_ms"
# Of the sample store and of stored predictions.
SAMPLE_ID, USER, TIME, WEIGHT = "sample_id", "user_id", "time_ms", "sample_weight"


def scene_column(scene: str) -> str:
    return f"scene_{scene}"


def label_column(objective: str) -> str:
    return f"label_{objective}"


def mask_column(objective: str) -> str:
    return f"mask_{objective}"


def prediction_column(objective: str) -> str:
    return f"pred_{objective}"


def truth_column(objective: str) -> str:
    """True probability of a binary objective, where logs are simulated."""
    return f"truth_{objective}"


def baseline_column(objective: str) -> str:
    """Prediction of a simple rule for a regression objective, in its unit."""
    return f"baseline_{objective}"


def feature_column(feature: str) -> str:
    return f"feature_{feature}"


def sample_columns(spec: Spec) -> list[str]:
    """The columns of the sample store, in their order."""
    return [
        *(SAMPLE_ID, USER, TIME, WEIGHT),
        *map(scene_column, spec.scenes),
        *map(label_column, spec.objectives),
        *map(mask_column, spec.objectives),
        *map(feature_column, spec.features),
    ]
