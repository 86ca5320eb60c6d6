package contracts

// Version is the version of this release, or of the next one. The modules are released
// together and require each other at this version.
const Version = "0.2.0"
