Feature: What came of decisions like this one
  An analyst who looks at an open invoice wants to know how such invoices ended before, and asks a colleague. The past
  decisions with a known outcome are that colleague.

  Scenario: An analyst asks about the likeliest and the least likely late invoice of the list
    Given a morning on which some outcome dates are complete and some are open
    When the analyst asks for the past cases like the likeliest late invoice, and like the least likely one
    Then of the former more had been late
    And each case had an outcome before that decision was made

  Scenario: An agent asks the same questions
    Given a morning on which some outcome dates are complete and some are open
    When an agent asks the MCP server about the likeliest late invoice
    Then it is told the same past cases as the analyst
    And it is told why, from the model that the champion is, made again from the events
