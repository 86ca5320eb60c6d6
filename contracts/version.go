package contracts

// Version is the release that this tree is, or becomes. The modules are released
// together and require each other at it.
const Version = "0.2.0"
