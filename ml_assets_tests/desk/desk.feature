Feature: Analysts work the list until the cut-off, and what they know comes back

  Background:
    Given a team of five, and eight open instructions that were scored at 07:00 UTC

  Scenario: An instruction is worked from claim to result
    When ana claims I1
    Then the list says that I1 is "in work" with ana
    When ana acts on I1 as suggested
    Then I1 is no longer on her list of what is to do
    When ana says that the result of I1 is "averted"
    And ana says that the reason of I1 was right
    Then the ledger has for I1 claimed, acted, resulted, judged by ana
    And each line has the score, the rank and the model that she saw

  Scenario: Many rows at once
    When ana ticks I1, I2 and I3 and claims them
    Then the list says that I3 is "in work" with ana
    When ana ticks I1, I2 and I3 and acts on them as suggested
    Then 3 of the 5 are acted on

  Scenario: Two analysts want one instruction
    Given ana and ben look at the list
    When ana claims I2
    And ben claims I2 on the page that he has
    Then ben is told with a conflict that ana has it
    When ben takes I2 over
    Then the list says that I2 is "in work" with ben

  Scenario: Two analysts did something about one instruction
    Given ana and ben look at the list
    When ana acts on I2 as suggested
    And ben acts on I2 on the page that he has
    Then ben is told with a conflict what ana did
    And only one line says that I2 was acted on

  Scenario: A claim is a lease
    When ana claims I1
    And 31 minutes pass
    Then the list says that I1 is "open"
    And ben can claim it

  Scenario: A double click counts once
    When ana presses claim on I1 twice on one page
    Then the ledger has for I1 claimed by ana

  Scenario: An undo is a new line
    When ana acts on I1 as suggested
    And ana takes that back
    Then the list says that I1 is "open"
    And the ledger has for I1 acted, undone by ana

  Scenario: The list does not move under the reader
    Given ana looks at the list
    When I8 is scored anew and is now the dearest
    Then her list is as it was, and says that there is newer scoring
    When she asks for the newer list
    Then I8 is first, and marked as changed

  Scenario: What is past its cut-off is nothing to do
    When it is 16:01 UTC
    Then nothing is left to do, and 5 were missed

  Scenario: What has settled or was cancelled since the scoring is nothing to do
    When I1 settles, half of I2 settles, and I3 is cancelled at 08:00 UTC
    Then the list says that I1 is "no longer open"
    And I1 and I3 are no longer to do, and I2 still is
    And ana's page is told of I1 and I3 without being opened again

  Scenario: The reason was another one
    When ana says that the reason of I1 was really NMAT with the note "their agent had another quantity"
    Then the ledger knows for I1 the reason NMAT where LACK was shown

  Scenario: A few rows are shown without their score
    Given a third of the list is shown without score
    Then a hidden row shows neither score nor reason
    When ana acts on the hidden row for NMAT
    Then the ledger has no score for it, and now the score is shown
    And the lead sees how many of such rows were acted on, beside the others

  Scenario: The lead sees how the list goes
    When ana ticks I1, I2 and I3 and acts on them as suggested
    And ben acts on I4 as suggested
    Then the lead's page says 4 acted on, ana 3 and ben 1, and what was saved
    And an analyst does not see the lead's page
