from pipeline.manifest import Manifest


def test_days_of_training_may_be_left_out_and_other_splits_stay(manifest: Manifest):
    first, second, third = manifest.days("train")
    for bounds, left in (
        (("",), [first, second, third]),
        ((second,), [second, third]),
        ((first, second), [first, second]),
        (("", first), [first]),
        (("9999-12-31",), []),
    ):
        narrowed = manifest.trained_on(*bounds)
        assert narrowed.days("train") == left
        assert narrowed.rows("train") == sum(f.rows for f in manifest.files if f.split == "train" and f.date in left)
        for split in ("valid", "test"):
            assert narrowed.content(split) == manifest.content(split)
