import type { Cluster } from "./cluster"

/** Milliseconds between two looks whether the cluster still has what it had. */
export const WATCH = 5_000

/**
 * The newest message that one has seen of a stream. A cluster that lost machines without their disks can go back to an earlier
 * state, and take other messages at the same positions; as long as this one is where it was, so is all before it.
 */
export class Witness {
  #position = 0
  #id = ""

  see(position: number, id: string): void {
    if (position <= this.#position) return
    this.#position = position
    this.#id = id
  }

  get position(): number {
    return this.#position
  }

  forget(): void {
    this.#position = 0
  }

  async isThere(cluster: Cluster): Promise<boolean> {
    const [position, id] = [this.#position, this.#id]
    return position === 0 || (await cluster.idAt(position)) === id
  }
}
