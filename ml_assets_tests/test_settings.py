"""Settings: what is wrong is said in words, and all can be shown without a secret."""

import sys
from pathlib import Path

import pytest

from ml_assets.cli.main import main
from ml_assets.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("text", ["one.cases,two", " one.cases , two ", '["one.cases", "two"]'])
def test_a_list_is_taken_with_commas_or_as_json(text, monkeypatch):
    monkeypatch.setenv("ML_ASSETS_USECASE_PACKAGES", text)
    assert Settings().usecase_packages == ["one.cases", "two"]


def test_a_list_in_a_file_is_taken_the_same_way():
    Path(".env").write_text("ML_ASSETS_USECASE_PACKAGES=one,two\n")
    assert Settings().usecase_packages == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ML_ASSETS_THREADS", "many", "ML_ASSETS_THREADS is 'many': input should be a valid integer"),
        ("ML_ASSETS_LANDING_CLOCK", "never", "ML_ASSETS_LANDING_CLOCK is 'never': input should be 'live' or 'replay'"),
        ("ML_ASSETS_USECASE_PACKAGES", '["one"', "write names with commas between, or JSON"),
    ],
)
def test_a_value_that_cannot_be_is_an_error_on_one_line(name, value, says, monkeypatch, capsys):
    """Guards a traceback of pydantic, in which nobody finds the variable."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="ml-assets settings"):
        Settings()
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(sys, "argv", ["ml-assets", "status"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert says in said
    assert "Traceback" not in said


def test_all_settings_are_shown_with_where_they_are_from(monkeypatch, tmp_path):
    """Guards a list of settings that shows a password, or says `default` of what somebody has set."""
    hidden = "hush-hush"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "ML_ASSETS_S3_SECRET_KEY").write_text(hidden)
    Path(".env").write_text("ML_ASSETS_THREADS=3\n")
    monkeypatch.setenv("ML_ASSETS_SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.setenv("AWS_REGION", "eu-1")
    monkeypatch.setenv("ML_ASSETS_MLFLOW_URI", f"postgresql://me:{hidden}@host/db")
    monkeypatch.setenv("ML_ASSETS_KAFKA_PASSWORD", hidden)
    shown = {one.variable: one for one in Settings().shown()}
    assert len(shown) == len(Settings.model_fields)
    assert all(one.meaning for one in shown.values())
    assert hidden not in str(shown)
    assert (shown["ML_ASSETS_THREADS"].value, shown["ML_ASSETS_THREADS"].source) == ("3", ".env")
    assert (shown["ML_ASSETS_S3_REGION"].value, shown["ML_ASSETS_S3_REGION"].source) == ("eu-1", "environment")
    assert shown["ML_ASSETS_S3_SECRET_KEY"].source == f"file in {tmp_path / 'secrets'}"
    assert shown["ML_ASSETS_KAFKA_PASSWORD"].value == "(set, not shown)"
    assert shown["ML_ASSETS_MLFLOW_URI"].value == "postgresql://me:...@host/db"
    assert shown["ML_ASSETS_PREDICTION_MONTHS"].source == "default"


def test_a_home_folder_can_be_written_short(monkeypatch):
    monkeypatch.setenv("ML_ASSETS_LAKE_ROOT", "~/lake")
    assert Settings().lake_uri == str(Path.home() / "lake")
