from pipeline.manifest import Manifest


def test_days_of_training_may_be_left_out_and_other_splits_stay(manifest: Manifest):
    first, second, third = manifest.days("train")
    for since, left in (
        ("", [first, second, third]),
        (second, [second, third]),
        (third, [third]),
        ("9999-12-31", []),
    ):
        narrowed = manifest.trained_since(since)
        assert narrowed.days("train") == left
        assert narrowed.rows("train") == sum(f.rows for f in manifest.files if f.split == "train" and f.date in left)
        for split in ("valid", "test"):
            files = [[file for file in of.files if file.split == split] for of in (narrowed, manifest)]
            assert files[0] == files[1] != []


def test_a_digest_tells_manifests_apart_and_survives_a_file(manifest: Manifest):
    assert Manifest.model_validate_json(manifest.model_dump_json(indent=1)).digest() == manifest.digest()
    assert manifest.trained_since(manifest.days("train")[1]).digest() != manifest.digest()
    assert manifest.model_copy(update={"filtered": manifest.filtered + 1}).digest() != manifest.digest()
