import pytest

from ml_assets.local.simulation.identifiers import is_isin, is_lei, isin, lei

# Apple, SAP, Siemens; Apple, Deutsche Bank.
REAL_ISINS = ["US0378331005", "DE0007164600", "DE0007236101"]
REAL_LEIS = ["HWUPKR0MPOU8FGXBT394", "7LTWFZYICNSX8D621K86"]


@pytest.mark.parametrize("code", REAL_ISINS)
def test_real_isins_are_valid_and_no_other_check_digit_is(code):
    others = [code[:-1] + str(digit) for digit in range(10)]
    assert [other for other in others if is_isin(other)] == [code]


@pytest.mark.parametrize("code", REAL_LEIS)
def test_real_leis_are_valid_and_a_typing_error_is_not(code):
    assert is_lei(code)
    assert not is_lei(code[1] + code[0] + code[2:])
    assert not is_lei(code[:-1])


def test_made_up_identifiers_are_valid_and_distinct():
    isins = [isin("DE", number) for number in range(500)]
    leis = [lei(number) for number in range(500)]
    assert all(map(is_isin, isins))
    assert all(map(is_lei, leis))
    assert len({*isins, *leis}) == 1000
