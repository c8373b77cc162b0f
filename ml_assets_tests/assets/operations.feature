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
