"use strict"

require("./suite.js").runsOn("node-20")
