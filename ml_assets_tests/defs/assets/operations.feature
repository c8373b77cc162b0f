Feature: Markets Operations lives with its models

  Scenario: The team acts on the dearest decisions first
    Given a use case that has been through the whole lifecycle
    When an analyst asks for the next day's work-list
    Then it has as many rows as the team can act on
    And the dearest come first, each with the model version that speaks

  Scenario: A challenger that does not pass the gate does not score
    Given a use case that has been through the whole lifecycle
    And a gate that no model passes
    When the nightly retraining has run
    Then the champion is the one from before
    And the asset champion shows which condition failed

  Scenario: A person promotes against the gate and says why
    Given a use case that has been through the whole lifecycle
    And a gate that no model passes
    When the nightly retraining has run
    And a person promotes the challenger because "the feed was down"
    Then the challenger is champion
    And the reason "the feed was down" is kept on it

  Scenario: In the tier high nothing is scored before a second person has approved
    Given a use case of tier high whose dates have landed
    When its features are made and the nightly retraining has run
    Then the asset champion awaits approval
    And the automation scores nothing
    When another person approves the challenger because "the pack is complete"
    Then the asset champion shows the approval by "reviewer"
    And the automation scores the newest date

  Scenario: A feed that breaks its contract stops the date until it is mended
    Given a use case of its own whose first date has landed
    And 12 invoices of that date from a payer that the contract does not know
    When the date is ingested
    Then the check "dead_letter_rate" stops it before features
    When the contract is mended and the dead letters are replayed
    And the date is ingested
    Then its curated table has 72 invoices and nothing waits
