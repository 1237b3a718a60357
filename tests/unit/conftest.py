import pytest


@pytest.fixture(autouse=True)
def _no_sockets(socket_disabled):
    """Whatever needs a network is no unit."""
