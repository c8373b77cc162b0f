Feature: The desk learns what has changed before it costs a month

  Scenario: A payer degrades, and by Thursday the desk reads who it is and which cause moved
    Given a use case whose champion has scored two weeks
    When payer P0, who pays in time, pays nothing that is due from Tuesday on
    And the payer with the worst record sends 30 invoices more a day from Tuesday on
    And the mornings of that week are monitored until Thursday
    Then the asset drift names "payer P0" with its late invoices beside those expected
    And it says that the cause "PAYER" has raised the mean log-odds
    And amounts, which are as before, are not named
    And the check "no_drift" warns on its page
