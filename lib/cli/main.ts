#!/usr/bin/env node
import { main } from "./program"

// All that was written has been taken, and whatever else may still wait for something is not waited for.
void main(process.argv.slice(2)).then((code) => process.exit(code))
