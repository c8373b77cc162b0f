Feature: Operations learn of trouble from the system, not from a client

  Scenario: The desk is told once that a feed has shrunk, and once that it is over
    Given a desk that is told by a webhook
    When the trades of Friday are a third of what is usual
    Then the desk is told "trades of 2026-03-06: 1,300 events; usual are 4,000" within the round
    When an hour later it is still so
    Then the desk is told nothing
    When the rest has landed
    Then the desk is told that it is over

  Scenario: Somebody is at it
    Given a desk that is told by a webhook
    When the trades of Friday are a third of what is usual
    And an analyst acknowledges it because "the source sends again at noon"
    And a day later it is still so
    Then the desk is told nothing after the first message
    And the ledger says who is at it and why

  Scenario: Nothing is told during a release, and what is left of it afterwards is
    Given a desk that is told by a webhook
    And an engineer has silenced the rule for 2 hours because "release of the feed"
    When the trades of Friday are a third of what is usual
    Then the desk is told nothing
    When the silence is over and it is still so
    Then the desk is told that it is still open

  Scenario: A rule that cannot look is no good news
    Given a desk that is told by a webhook
    When the trades of Friday are a third of what is usual
    And for half an hour the rule cannot be evaluated
    Then the desk is told that the rule cannot be evaluated
    And the alert of the trades is still open
