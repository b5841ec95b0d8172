from twisted_beastws.wire.turns import TurnBudget as TurnBudget
