// Package plans makes random definitions of sagas, with the API that users have: every kind of node, nested, with
// every policy, join and role, and all of them valid.
//
// It may import sagas alone. The rule that must not break: a definition, its functions and its hash depend on the
// seed and the options and on nothing else, so that a run that failed can be repeated from its seed.
//
// What a saga does depends on its data: conditions, the length of lists and the keys of events are read from a
// number that the starting event brings (Order.Draw), from what was counted, and from the order in which replies came
// (Data.Sum). Data, commands and events are small JSON values, and every payload carries the sum, so that
// whoever compares payloads sees in which order a saga changed its data.
package plans
