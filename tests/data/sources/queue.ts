import { EventEmitter } from 'node:events';

export interface Job<T> {
  readonly id: number;
  payload: T;
  retries?: number;
}

type State = 'idle' | 'running' | "failed";

enum Level {
  Low = 1,
  High = 10,
}

/* Runs jobs, one at a time. */
export class Queue<T extends object> extends EventEmitter {
  private readonly jobs: Array<Job<T>> = [];
  state: State = 'idle';

  constructor(private readonly work: (job: Job<T>) => Promise<void>, public level: Level = Level.Low) {
    super();
  }

  push(payload: T, retries = 3): number {
    const id = this.jobs.length + 1;
    this.jobs.push({ id, payload, retries });
    return id;
  }

  async run(): Promise<Record<string, number>> {
    const counts: Record<string, number> = { done: 0, failed: 0 };
    for (const job of this.jobs) {
      try {
        await this.work(job);
        counts['done'] += 1;
      } catch (error) {
        counts.failed++;
        this.emit('failed', job.id, `job ${job.id}: ${(error as Error).message}`);
      }
    }
    return counts;
  }
}

export const isHigh = <T extends object>(queue: Queue<T>): boolean => queue.level >= Level.High;
