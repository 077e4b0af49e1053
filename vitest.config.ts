import { defineConfig } from "vitest/config";

const slow = ["test/crash/**/*.test.ts", "test/world/**/*.test.ts"];

export default defineConfig({
  test: {
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 20_000,
    hookTimeout: 20_000,
    globalSetup: ["test/support/runtime.ts"],
    projects: [
      { extends: true, test: { name: "fast", include: ["test/**/*.test.ts"], exclude: [...slow, "test/net/**"] } },
      { extends: true, test: { name: "slow", include: slow, testTimeout: 120_000, fileParallelism: false } },
      {
        extends: true,
        test: { name: "net", include: ["test/net/**/*.net.test.ts"], testTimeout: 240_000, fileParallelism: false },
      },
      {
        extends: true,
        test: {
          name: "interop",
          include: ["interop/*.interop.ts"],
          testTimeout: 180_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
