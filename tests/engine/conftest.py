import pytest

from locard.testing import toy_data, toy_model


@pytest.fixture(scope="session")
def data():
    return toy_data()


@pytest.fixture
def victim():
    return toy_model(0)


@pytest.fixture(scope="session")
def independents():
    return [toy_model(seed) for seed in range(100, 119)]
