Feature: Operations trusts the scoring service while models change

  Background:
    Given a service whose champion is version 1, and two more versions

  Scenario: This morning's instructions are scored, and an analyst sees why
    When an analyst asks for every open instruction
    Then each has the probability that version 1 gives
    And the reasons of the dearest sum to its log-odds

  Scenario: A trader asks before booking
    When a trader asks about an open instruction under a new number
    Then it is scored as that instruction, and nothing is booked

  Scenario: A canary answers for its share until a person ends it
    When version 3, which says what version 1 says, goes into canary for 30 %
    Then the instructions of its share, and no others, are answered by version 3
    And what is recorded says so, with the shadow of every instruction
    And what is not booked yet goes by its number
    And the service shows the canary with its share
    When a wider canary of version 3 begins for 60 %
    Then the instructions of the smaller share are in the wider one
    When a person ends the canary
    Then every instruction is answered by version 1

  Scenario: A canary fails and comes back
    When version 2, which judges otherwise, goes into canary for 30 %
    Then the guard takes it back
    And the ledger says which limit was broken, by how much
    And every instruction is answered by version 1
    And no answer was other than what its version gives

  Scenario: A canary that did well is made champion, and a person goes back
    When version 3, which says what version 1 says, goes into canary for 30 %
    And version 3 is promoted
    Then every instruction is answered by version 3
    And version 1 scores in the shadow
    When a person rolls back to version 1
    Then every instruction is answered by version 1
    And version 3 scores in the shadow
