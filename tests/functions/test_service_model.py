"""The session of all clients, with MWAA's service model, which we ship: Lambda's own botocore is older."""

import gzip
import json
from pathlib import Path

import botocore
import botocore.session
import pytest
from botocore.loaders import Loader

from transient_mwaa.aws import passing
from transient_mwaa.aws.mwaa import Mwaa

pytestmark = pytest.mark.functions

BOTOCORE = Path(botocore.__file__).parent / "data"
MODEL = Path("mwaa/2020-07-01/service-2.json.gz")
NEWER = "MinWebservers"
"""A member of both shapes that an older botocore may not know."""


@pytest.fixture
def older(tmp_path, monkeypatch):
    """botocore as if it were older: MWAA's model without a member, everything else as it is."""
    model = json.loads(gzip.decompress((BOTOCORE / MODEL).read_bytes()))
    for shape in ("Environment", "CreateEnvironmentInput"):
        del model["shapes"][shape]["members"][NEWER]
    for each in BOTOCORE.iterdir():
        if each.name != "mwaa":
            (tmp_path / each.name).symlink_to(each)
    folder = tmp_path / MODEL.parent
    folder.mkdir(parents=True)
    for each in (BOTOCORE / MODEL).parent.iterdir():
        if each.name != MODEL.name:
            (folder / each.name).symlink_to(each)
    (folder / MODEL.name).write_bytes(gzip.compress(json.dumps(model).encode()))
    monkeypatch.setattr(Loader, "BUILTIN_DATA_PATH", str(tmp_path))
    for name in ("_loader", "_boto3"):  # made once for each process
        monkeypatch.setattr(passing, name, getattr(passing, name).__wrapped__)


def shapes(client):
    mwaa = Mwaa(client)
    return mwaa.create_shape()["members"], mwaa.environment_shape()["members"]


def test_the_model_is_that_of_the_pinned_botocore():
    shipped = sorted(path.relative_to(passing.MODELS) for path in passing.MODELS.rglob("*") if path.is_file())
    assert shipped == [MODEL]
    ours, pinned = (gzip.decompress((folder / MODEL).read_bytes()) for folder in (passing.MODELS, BOTOCORE))
    assert ours == pinned, "run `make models`"


@pytest.mark.usefixtures("older")
def test_what_only_our_model_knows_is_known_in_lambda():
    plain = botocore.session.Session().create_client("mwaa", region_name="us-east-1")
    assert [NEWER in members for members in shapes(plain)] == [False, False]
    assert [NEWER in members for members in shapes(passing.new_client("mwaa"))] == [True, True]


@pytest.mark.usefixtures("older")
def test_every_other_service_is_as_lambda_has_it():
    assert "PutObject" in passing.client("s3").meta.service_model.operation_names
    assert passing.client("mwaa").can_paginate("list_environments")


def test_clients_can_still_be_made_once_secrets_have_been_opened(night):
    """The encryption library makes a boto3 session of its own from the botocore session that it gets. boto3 adds its
    methods to client classes through hooks of that session, and refuses when there are two sets of them."""
    sealed = night.encryption.encrypt(b"a secret", {"environment": "dev"})
    assert night.encryption.decrypt(sealed, {"environment": "dev"}) == b"a secret"
    assert passing.new_client("s3").upload_file
