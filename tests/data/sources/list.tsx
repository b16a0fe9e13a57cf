import React, { useState } from 'react';

type Props = { title: string; items: string[]; onPick?: (name: string) => void };

export function List({ title, items, onPick }: Props): JSX.Element {
  const [query, setQuery] = useState('');
  const shown = items.filter((item) => item.includes(query));

  function pick(name: string) {
    if (onPick) {
      onPick(name);
    }
  }

  return (
    <section className="list" data-count={shown.length}>
      <h2>{title.toUpperCase()}</h2>
      {/* the search field */}
      <input value={query} onChange={(event) => setQuery(event.target.value)} placeholder="Search" />
      <ul>
        {shown.map((item, index) => (
          <li key={`${item}-${index}`} onClick={() => pick(item)}>
            <b>{index + 1}.</b> {item}
          </li>
        ))}
      </ul>
      {shown.length === 0 && <p style={{ color: 'gray', margin: 4 }}>Nothing found</p>}
    </section>
  );
}
